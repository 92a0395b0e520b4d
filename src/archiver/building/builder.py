"""Makes an archive that no region has, of what costs the least, and puts it into all of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from archiver.errors import (
    ArchiverError,
    BadArchive,
    BytesChanged,
    CorruptArchive,
    IncompleteArchive,
    InternalError,
    NotAnArchive,
    NotConvertible,
    NotPackable,
    StorageUnavailable,
    SuffixRefused,
    TruncatedArchive,
)
from archiver.model import Archive, Completeness, Conversion, Copies, Manifest, Verified
from archiver.names import shown_path
from archiver.ports.formats import Converter, Verifier, VerifierFactory
from archiver.ports.index import Index
from archiver.ports.queue import Attempt
from archiver.ports.source import Source, Stream
from archiver.ports.storage import Commit, Storage, StoredState
from archiver.runtime.prefetch import prefetch
from archiver.runtime.tasks import concurrently
from archiver.tasks import Phase
from archiver.telemetry import log

T = TypeVar("T")

Report = Callable[[Phase, int], None]
"""Told how far something is: what is being done, and how many bytes of it are."""

CHUNKS_AHEAD = 1
"""So that the next chunk comes, and the last one goes, while one is verified."""

CHEAPEST_FIRST = ("tar.zst", "tar", "tar.gz", "zip", "tar.xz", "tar.bz2")
"""Formats in the order of what it takes to read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Bytes of *archive*, which is wanted itself, or to be made into what is.

    They are packed below ``root``, and are to be below ``client_root``. ``size_bytes`` is 0 if it
    is not known yet. When all have come, ``found`` returns their measures, and ``completeness`` how
    it is known that no file is missing.
    """

    archive: Archive
    root: str
    client_root: str
    source_url: str
    chunks: AsyncGenerator[bytes, None]
    found: Callable[[], Verified | Manifest]
    completeness: Callable[[], Completeness]
    size_bytes: int = 0


class Progress:
    """How far one try at an archive is. ``broken`` says that what was given broke off."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.broken = False
        self._receiving = False

    def begin(self) -> None:
        """Report that somebody is at work on the bytes by now, even if none has come yet."""
        self._report(Phase.FETCHING, 0)

    async def receiving(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._receiving = True
        size_bytes = 0
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    self._report(Phase.FETCHING, size_bytes)
                    yield chunk
        except ArchiverError:
            self.broken = True
            raise
        self._receiving = False

    async def making(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        size_bytes = 0
        async for piece in pieces:
            size_bytes += len(piece)
            if not self._receiving:  # until then, what comes tells more of how far it is
                self._report(Phase.CONVERTING, size_bytes)
            yield piece


_CUT = (NotAnArchive, TruncatedArchive, IncompleteArchive, CorruptArchive)
"""What an archive may look like that its host broke off."""


class Proof:
    """Proves an archive to be complete by the file that its host lists last.

    The host is asked while the bytes come. Its packer writes files in their order, and one that
    fails in the middle may leave a sound zip behind.
    """

    def __init__(
        self, source: Source, archive: Archive, asking: asyncio.Task[bytes | None]
    ) -> None:
        self._source = source
        self._archive = archive
        self._asking = asking

    def raise_failure(self) -> None:
        """Raise the host's failure to answer, if it is known: then nothing can be proven.

        Raises:
            ArchiverError: As does ``Source.last_file``.
        """
        if self._asking.done():
            self._asking.result()

    async def conclude(self, last_file: bytes) -> Completeness:
        """Return how it is known that an archive with this *last_file* is complete.

        Raises:
            IncompleteArchive: It is not.
            ArchiverError: As does ``Source.last_file``.
        """
        expected = await self._asking
        if expected is None:
            return Completeness.TRUSTED
        if expected != last_file:
            ends = f"with {shown_path(last_file)}" if last_file else "before the first file"
            raise IncompleteArchive(
                f"the archive ends {ends}, and its tree with {shown_path(expected)}"
            )
        return Completeness.PROVEN

    async def explain(self, failure: BadArchive, last_file: bytes) -> NotPackable | None:
        """Return why the host breaks the archive off after *last_file*, if it always will."""
        if isinstance(failure, _CUT):
            with suppress(ArchiverError):
                return await self._source.unpackable(self._archive, after=last_file)
        return None


@asynccontextmanager
async def proving(source: Source, archive: Archive) -> AsyncIterator[Proof]:
    """Yield the proof of *archive*, and ask *source* for it while the block runs."""
    async with concurrently(source.last_file(archive)) as asking:
        yield Proof(source, archive, asking)


class Checked:
    """A stream that comes to its end only if its verifier is content with it.

    With a *proof*, it also has to be complete.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes, None],
        verifier: Verifier,
        proof: Proof | None = None,
    ) -> None:
        self._stream = stream
        self._verifier = verifier
        self._proof = proof
        self._verified: Verified | None = None
        self._completeness = Completeness.TRUSTED

    @property
    def completeness(self) -> Completeness:
        """How it is known that the stream, which has to be at its end, was complete."""
        return self._completeness

    @property
    def verified(self) -> Verified:
        if self._verified is None:
            raise InternalError("a stream was used before its end")
        return self._verified

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._stream):
                async for chunk in self._stream:
                    await self._verifier.update(chunk)
                    if self._proof:
                        self._proof.raise_failure()
                    yield chunk
            verified = await self._verifier.finish()
            if self._proof:
                self._completeness = await self._proof.conclude(verified.last_file)
        except BadArchive as exc:
            proof = self._proof
            if proof and (reason := await proof.explain(exc, self._verifier.last_file)):
                raise reason from exc
            raise
        self._verified = verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An archive on its way: as its host sends it or, by ``converter``, made of what was given."""

    checked: Checked
    source_url: str
    given: Given | None = None
    converter: str = ""

    @property
    def completeness(self) -> Completeness:
        """How it is known that no file is missing; to be asked once all of it has come."""
        return self.given.completeness() if self.given else self.checked.completeness

    @property
    def conversion(self) -> Conversion | None:
        """Of what it was made, if it was; known once all of it has come."""
        if self.given is None:
            return None
        found = self.given.found()
        return Conversion(
            key=self.given.archive.key,
            sha256=found.sha256,
            size_bytes=found.size_bytes,
            converter=self.converter,
        )


class Workshop:
    """Makes archives of what comes, and has a verifier read what comes and what it makes."""

    def __init__(self, *, verify: VerifierFactory, converter: Converter) -> None:
        self._verify = verify
        self._converter = converter

    @asynccontextmanager
    async def fetch(
        self,
        source: Source,
        candidate: Archive,
        archive: Archive,
        progress: Progress,
        *,
        convert: bool = False,
    ) -> AsyncIterator[Made]:
        """Ask the host for *candidate*, and yield *archive* as it is made of the answer.

        If the answer is the archive itself, it is only converted if that is to *convert* it, or if
        it has another root than clients expect.

        Raises, as does what is made:
            NoRoom: Nothing was read of what the host would send, since there is no room to convert
                it. The host was asked only if its answer alone showed that it is to be converted.
            ArchiverError: The host did not send it, or it cannot be made of what it sent.
        """
        async with (
            self._opened(source, candidate, archive, convert=convert) as (stream, converts),
            proving(source, candidate) as proof,
            prefetch(progress.receiving(stream.chunks()), CHUNKS_AHEAD) as chunks,
        ):
            progress.begin()
            fetched = Checked(chunks, self._verify(candidate, root=stream.root), proof)
            if not converts:
                yield Made(checked=fetched, source_url=stream.url)
                return
            given = Given(
                archive=candidate,
                root=stream.root,
                client_root=stream.client_root,
                source_url=stream.url,
                chunks=fetched.chunks(),
                found=lambda: fetched.verified,
                completeness=lambda: fetched.completeness,
                size_bytes=stream.size_bytes,
            )
            async with self.convert(given, archive, progress) as made:
                yield made

    @asynccontextmanager
    async def _opened(
        self, source: Source, candidate: Archive, archive: Archive, *, convert: bool
    ) -> AsyncIterator[tuple[Stream, bool]]:
        """Yield the host's answer, and whether it is to be converted. Raises NoRoom."""
        convert = convert or candidate != archive
        if convert:
            self._converter.require_room(original=candidate, target=archive)
        async with source.open(candidate) as stream:
            if not convert and stream.root != stream.client_root:
                convert = True
                self._converter.require_room(original=candidate, target=archive)
            yield stream, convert

    def require_room(self, given: Manifest, relative: Archive, archive: Archive) -> None:
        """Return if *archive* can be made of *relative*, which *given* describes. Raises NoRoom."""
        self._converter.require_room(original=relative, target=archive, size_bytes=given.size_bytes)

    @asynccontextmanager
    async def stored(
        self,
        source: Source,
        archive: Archive,
        manifest: Manifest,
        chunks: AsyncGenerator[bytes, None],
    ) -> AsyncIterator[Given]:
        """Yield *chunks*, a region's copy of *archive*, as something to convert.

        It was verified when it was stored. If its manifest does not say that it is complete, this
        proves it.

        Raises, as do the chunks:
            IncompleteArchive: It is not complete.
            ArchiverError: As does ``Source.last_file``.
        """
        given = Given(
            archive=archive,
            root=manifest.root,
            client_root=manifest.root,
            source_url=manifest.source_url,
            chunks=chunks,
            found=lambda: manifest,
            completeness=lambda: manifest.completeness or Completeness.TRUSTED,
            size_bytes=manifest.size_bytes,
        )
        proven = manifest.completeness is Completeness.PROVEN
        if proven or await source.last_file(archive) is None:
            yield given
            return
        async with proving(source, archive) as proof:
            checked = Checked(chunks, self._verify(archive, root=manifest.root), proof)
            yield replace(given, chunks=checked.chunks(), completeness=lambda: checked.completeness)

    @asynccontextmanager
    async def convert(
        self, given: Given, archive: Archive, progress: Progress
    ) -> AsyncIterator[Made]:
        """Yield *archive* as it is made of *given*, verified as if a host had sent it."""
        async with self._converter.convert(
            given.chunks,
            original=given.archive,
            target=archive,
            root=given.root,
            client_root=given.client_root,
            size_bytes=given.size_bytes,
        ) as pieces:
            verifier = self._verify(archive, root=given.client_root)
            yield Made(
                checked=Checked(progress.making(pieces), verifier),
                source_url=given.source_url,
                given=given,
                converter=self._converter.version(archive.suffix),
            )


async def first_packable(
    candidates: Sequence[Archive], fetch: Callable[[Archive], Awaitable[T]]
) -> T:
    """Return what *fetch* returns for the first of *candidates* that the host can pack.

    Raises:
        NotPackable: It can pack none; this says why not the first.
        whatever *fetch* raises.
    """
    failure: NotPackable | None = None
    for candidate in candidates:
        try:
            return await fetch(candidate)
        except NotPackable as exc:
            log.warning("format.failed", key=candidate.key, code=exc.code, reason=exc.message)
            failure = failure or exc
        except SuffixRefused:
            if failure is None:
                raise
    raise failure or InternalError("there was nothing to fetch")


class Builder:
    """Knows where the bytes of an archive may come from, and what has to be done to them."""

    def __init__(
        self,
        *,
        storage: Storage,
        index: Index,
        verify: VerifierFactory,
        converter: Converter,
    ) -> None:
        self._storage = storage
        self._index = index
        self._workshop = Workshop(verify=verify, converter=converter)

    async def relatives(self, source: Source, archive: Archive) -> list[tuple[Archive, Copies]]:
        """Return what the regions have that *archive* may be made of, the cheapest first."""
        if source.wants_verbatim(archive):
            return []
        candidates = [
            replace(archive, subdir=subdir, suffix=suffix)
            for subdir in dict.fromkeys((archive.subdir, ""))
            for suffix in CHEAPEST_FIRST
        ]
        candidates.remove(archive)
        found = await asyncio.gather(*map(self._known, candidates))
        return [(given, copies) for given, copies in zip(candidates, found, strict=True) if copies]

    async def _known(self, archive: Archive) -> Copies | None:
        """Return the copies of *archive*, or None where no region tells: something else will do."""
        try:
            return await self._index.copies(archive)
        except StorageUnavailable as exc:
            log.warning("input.failed", key=archive.key, **exc.log_fields)
            return None

    async def make(
        self, source: Source, archive: Archive, attempt: Attempt, found: StoredState
    ) -> Copies:
        """Put *archive* into the regions, where none was *found*; return those that have it.

        What a region has costs the host nothing, so the host is asked last.

        Raises:
            ArchiverError: As does ``service.Archiver.build``.
        """
        for relative, copies in await self.relatives(source, archive):
            if remade := await self._remake(source, archive, relative, copies, attempt, found):
                return remade
        convert = bool(found.dangling_manifest and found.dangling_manifest.conversion)

        async def fetch(candidate: Archive) -> Copies:
            progress = Progress(attempt.report)
            async with self._workshop.fetch(
                source, candidate, archive, progress, convert=convert
            ) as made:
                return await self._store(archive, made, attempt, found)

        return await first_packable(source.candidates(archive), fetch)

    async def _remake(
        self,
        source: Source,
        archive: Archive,
        relative: Archive,
        copies: Copies,
        attempt: Attempt,
        found: StoredState,
    ) -> Copies | None:
        """Make *archive* of *relative*; return None if it cannot be.

        Where a region does not give it, the next one may. What it is does not depend on the region.
        Those that were silent a moment ago come last: a download from one takes minutes to fail.

        Raises:
            NoRoom: No region was asked, since there is no room to convert what it would give.
            ArchiverError: As does ``make``.
        """
        self._workshop.require_room(copies.manifest, relative, archive)
        for region in sorted(copies.regions, key=found.unreachable.__contains__):
            progress = Progress(attempt.report)
            chunks = progress.receiving(self._storage.read_copy(copies, region))
            progress.begin()
            try:
                async with (
                    self._workshop.stored(source, relative, copies.manifest, chunks) as given,
                    self._workshop.convert(given, archive, progress) as made,
                ):
                    return await self._store(archive, made, attempt, found)
            except ArchiverError as exc:
                if not (progress.broken or isinstance(exc, BadArchive)):
                    raise
                log.warning("input.failed", region=region, key=relative.key, **exc.log_fields)
                if isinstance(exc, (NotConvertible, BytesChanged, IncompleteArchive)):
                    break
        return None

    async def _store(
        self, archive: Archive, made: Made, attempt: Attempt, found: StoredState
    ) -> Copies:
        """Put what was made into the regions, and let it be seen once it is whole there."""
        async with prefetch(made.checked.chunks(), CHUNKS_AHEAD) as chunks:
            upload = await self._storage.upload(
                archive,
                chunks,
                attempt=attempt.id,
                avoid=found.unreachable,
                restore=found.dangling_manifest,
            )
        for region, exc in upload.failures.items():
            log.warning("upload.failed", region=region, key=archive.key, **exc.log_fields)
        verified = made.checked.verified
        attempt.report(Phase.COMMITTING, verified.size_bytes)
        return await self._storage.commit(
            Commit(
                archive=archive,
                upload=upload,
                verified=verified,
                source_url=made.source_url,
                completeness=made.completeness,
                conversion=made.conversion,
            ),
            prove_lease=attempt.hold,
        )
