"""Makes an archive that no region has, of what costs the least, and puts it into all of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from archiver.concurrency import ahead
from archiver.errors import ArchiverError, BadArchive, BytesChanged, InternalError, NotConvertible
from archiver.model import Archive, Conversion, Copies, Manifest, Region, Verified
from archiver.ports import Attempt, Converter, Found, Index, Source, Storage, Verifier, Verify
from archiver.tasks import Phase
from archiver.telemetry import log

Report = Callable[[Phase, int], None]
"""Told how far something is: what is being done, and how many bytes of it are."""

CHUNKS_AHEAD = 1
"""So that the next chunk comes, and the last one goes, while one is verified."""

CHEAPEST_FIRST = ("tar.zst", "tar", "tar.gz", "zip", "tar.xz", "tar.bz2")
"""Formats in the order of what it takes to read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Bytes of *archive*, which is wanted itself, or to be made into what is.

    ``size_bytes`` is 0 if it is not known yet; ``found`` tells what they were when all have come.
    """

    archive: Archive
    root: str
    source_url: str
    chunks: AsyncGenerator[bytes, None]
    found: Callable[[], Verified | Manifest]
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


class Checked:
    """A stream that comes to its end only if its verifier is content with it."""

    def __init__(self, stream: AsyncGenerator[bytes, None], verifier: Verifier) -> None:
        self._stream = stream
        self._verifier = verifier
        self._verified: Verified | None = None

    @property
    def verified(self) -> Verified:
        if self._verified is None:
            raise InternalError("a stream was used before its end")
        return self._verified

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._stream):
            async for chunk in self._stream:
                await self._verifier.update(chunk)
                yield chunk
        self._verified = await self._verifier.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An archive on its way: as its host sends it or, by ``converter``, made of what was given."""

    checked: Checked
    source_url: str
    given: Given | None = None
    converter: str = ""

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

    def __init__(self, *, verify: Verify, converter: Converter) -> None:
        self._verify = verify
        self._converter = converter

    @asynccontextmanager
    async def fetch(
        self, source: Source, archive: Archive, progress: Progress, *, convert: bool = False
    ) -> AsyncIterator[Made]:
        """Ask the host, and yield *archive* as it is made of the answer.

        If the answer is the archive itself, it is only converted if that is to *convert* it.

        Raises, as does what is made:
            ArchiverError: The host did not send it, or it cannot be made of what it sent.
        """
        fetchable = source.fetchable(archive)
        async with (
            source.open(fetchable) as stream,
            ahead(progress.receiving(stream.chunks()), CHUNKS_AHEAD) as chunks,
        ):
            progress.begin()
            fetched = Checked(chunks, self._verify(fetchable, root=stream.root))
            if fetchable == archive and not convert:
                yield Made(checked=fetched, source_url=stream.url)
                return
            given = Given(
                archive=fetchable,
                root=stream.root,
                source_url=stream.url,
                chunks=fetched.chunks(),
                found=lambda: fetched.verified,
                size_bytes=stream.size_bytes,
            )
            async with self.convert(given, archive, progress) as made:
                yield made

    @asynccontextmanager
    async def convert(
        self, given: Given, archive: Archive, progress: Progress
    ) -> AsyncIterator[Made]:
        """Yield *archive* as it is made of *given*, verified as if a host had sent it."""
        async with self._converter.convert(
            given.chunks,
            given=given.archive,
            wanted=archive,
            root=given.root,
            size_bytes=given.size_bytes,
        ) as pieces:
            verifier = self._verify(archive, root=given.root)
            yield Made(
                checked=Checked(progress.making(pieces), verifier),
                source_url=given.source_url,
                given=given,
                converter=self._converter.version(archive.suffix),
            )


class Maker:
    """Knows where the bytes of an archive may come from, and what has to be done to them."""

    def __init__(
        self,
        *,
        storage: Storage,
        index: Index,
        verify: Verify,
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
        found = await asyncio.gather(*map(self._index.copies, candidates))
        return [(given, copies) for given, copies in zip(candidates, found, strict=True) if copies]

    async def make(
        self, source: Source, archive: Archive, attempt: Attempt, found: Found
    ) -> Copies:
        """Put *archive* into the regions, where none was *found*; return those that have it.

        What a region has costs the host nothing, so the host is asked last.

        Raises:
            ArchiverError: As does ``service.Archiver.build``.
        """
        for relative, copies in await self.relatives(source, archive):
            if remade := await self._remake(archive, relative, copies, attempt, found):
                return remade
        convert = bool(found.promised and found.promised.conversion)
        progress = Progress(attempt.report)
        async with self._workshop.fetch(source, archive, progress, convert=convert) as made:
            return await self._store(archive, made, attempt, found)

    async def _remake(
        self, archive: Archive, relative: Archive, copies: Copies, attempt: Attempt, found: Found
    ) -> Copies | None:
        """Make *archive* of *relative*; return None if it cannot be.

        Where a region does not give it, the next one may. What it is does not depend on the region.
        """
        for region in copies.regions:
            progress = Progress(attempt.report)
            given = self._stored(relative, copies, region, progress)
            progress.begin()
            try:
                async with self._workshop.convert(given, archive, progress) as made:
                    return await self._store(archive, made, attempt, found)
            except ArchiverError as exc:
                if not (progress.broken or isinstance(exc, BadArchive)):
                    raise
                log.warning("input.failed", region=region, key=relative.key, **exc.log_fields)
                if isinstance(exc, (NotConvertible, BytesChanged)):
                    break
        return None

    def _stored(
        self, archive: Archive, copies: Copies, region: Region, progress: Progress
    ) -> Given:
        """Return what *region* has: verified when it came, and now held against its manifest."""
        manifest = copies.manifest
        return Given(
            archive=archive,
            root=manifest.root,
            source_url=manifest.source_url,
            chunks=progress.receiving(self._storage.read(copies, region)),
            found=lambda: manifest,
            size_bytes=manifest.size_bytes,
        )

    async def _store(self, archive: Archive, made: Made, attempt: Attempt, found: Found) -> Copies:
        """Put what was made into the regions, and let it be seen once it is whole there."""
        async with ahead(made.checked.chunks(), CHUNKS_AHEAD) as chunks:
            upload = await self._storage.upload(
                archive,
                chunks,
                attempt=attempt.id,
                avoid=found.unreachable,
                promised=found.promised,
            )
        for region, exc in upload.failures.items():
            log.warning("upload.failed", region=region, key=archive.key, **exc.log_fields)
        verified = made.checked.verified
        attempt.report(Phase.COMMITTING, verified.size_bytes)
        return await self._storage.commit(
            archive,
            upload,
            verified,
            hold=attempt.hold,
            source_url=made.source_url,
            conversion=made.conversion,
        )
