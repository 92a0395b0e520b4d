"""Turns the bytes of a host or a region into a verified archive, converted if necessary."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from archiver.building.streams import Progress, VerifiedStream, prove_completeness
from archiver.errors import InternalError, NotPackable, SuffixRefused
from archiver.model import Archive, Completeness, Conversion, Manifest, Verified
from archiver.ports.formats import Converter, Verifier, VerifierFactory
from archiver.ports.source import PipedTar, Source, Stream, TreeCheck
from archiver.telemetry import log
from archiver.telemetry.tracing import Kind, SpanName, measured, stage
from archiver.tree_proof import TreeProof

T = TypeVar("T")


async def first_packable(
    candidates: Sequence[Archive], fetch: Callable[[Archive], Awaitable[T]]
) -> T:
    """Return the result of *fetch* for the first of *candidates* that the host can pack.

    If it can pack none of them, the error of the first is raised.
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
    raise failure or InternalError("there are no candidates to fetch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Bytes of *archive* to convert.

    They are packed below ``root`` and will be packed below ``client_root``. ``size_bytes`` is 0 if
    unknown. ``measures`` and ``completeness`` may be called once all chunks were read. An input
    that exists only during the conversion has no ``measures``.
    """

    archive: Archive
    root: str
    client_root: str
    source_url: str
    chunks: AsyncGenerator[bytes, None]
    measures: Callable[[], Verified | Manifest | None]
    completeness: Callable[[], Completeness]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An archive as its host sends it or, with an ``input``, as ``converter`` makes it.

    ``completeness`` and ``conversion`` are known once all of ``stream`` was read.
    """

    stream: VerifiedStream
    source_url: str
    input: Input | None = None
    converter: str = ""

    @property
    def completeness(self) -> Completeness:
        if self.proof:
            return Completeness.PROVEN
        return self.input.completeness() if self.input else self.stream.completeness

    @property
    def proof(self) -> TreeProof | None:
        """The proof of the archive, or of the input that it was made from."""
        measures = self.input.measures() if self.input else None
        return self.stream.verified.proof or (measures.proof if measures else None)

    @property
    def conversion(self) -> Conversion | None:
        if self.input is None:
            return None
        measures = self.input.measures()
        return Conversion(
            key=self.input.archive.key,
            sha256=measures.sha256 if measures else "",
            size_bytes=measures.size_bytes if measures else 0,
            converter=self.converter,
        )


class Pipeline:
    """Connects inputs, the converter and verifiers. Both input and output are verified."""

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
    ) -> AsyncIterator[Output]:
        """Request *candidate* from the host, and yield *archive* made from it.

        A *candidate* that is *archive* itself is converted only with *convert*, or if its root is
        not the one that clients expect.

        Raises, as does reading the output:
            NoRoom: There is no room to convert it. No body was read, and no request was sent
                unless only the response shows that a conversion is necessary.
            ArchiverError: The host did not send it, or it cannot be converted.
        """
        async with (
            self._open(source, candidate, archive, progress, convert=convert) as (
                stream,
                converts,
            ),
            prove_completeness(source, candidate) as proof,
        ):
            progress.start()
            if stream.tree_check:
                async with self._make(source, candidate, archive, stream, progress) as output:
                    yield output
                return
            fetched = VerifiedStream(
                progress.receive(stream.chunks),
                self._verifier(source, candidate, stream.root),
                proof,
                suffix=candidate.suffix,
            )
            if not converts:
                yield Output(stream=fetched, source_url=stream.url)
                return
            input_ = Input(
                archive=candidate,
                root=stream.root,
                client_root=stream.client_root,
                source_url=stream.url,
                chunks=fetched.chunks(),
                measures=lambda: fetched.verified,
                completeness=lambda: fetched.completeness,
                size_bytes=stream.size_bytes,
            )
            async with self._convert(source, input_, archive, progress) as output:
                yield output

    @asynccontextmanager
    async def _open(
        self,
        source: Source,
        candidate: Archive,
        archive: Archive,
        progress: Progress,
        *,
        convert: bool,
    ) -> AsyncIterator[tuple[Stream, bool]]:
        """Yield the host's stream, and whether to convert it. Raises NoRoom."""
        convert = convert or candidate != archive
        if convert:
            self._converter.require_room(original=candidate, target=archive)
        with stage(
            SpanName.FETCH, kind=Kind.CLIENT, source=source.name, suffix=candidate.suffix
        ) as fetch:
            async with source.open(candidate, on_received=progress.received) as stream:
                if not stream.shows_progress:
                    progress.hide()
                if not convert and stream.root != stream.client_root:
                    convert = True
                    self._converter.require_room(original=candidate, target=archive)
                if stream.tree_check:  # the host has sent all before
                    fetch.set(size_bytes=progress.received_bytes)
                    fetch.end()
                    yield stream, convert
                else:
                    yield replace(stream, chunks=measured(stream.chunks, fetch)), convert

    @asynccontextmanager
    async def _make(
        self,
        source: Source,
        candidate: Archive,
        archive: Archive,
        stream: Stream,
        progress: Progress,
    ) -> AsyncIterator[Output]:
        """Yield *archive*, converted from a stream that is compared with the tree of its commit.

        The archive itself is compared. Only for a zip, which states the kinds of its members at its
        end, the stream is compared instead.
        """
        check, stream_check = stream.tree_check, None
        if archive.suffix == "zip":
            check, stream_check = stream_check, check
        made: VerifiedStream | None = None
        chunks = stream.chunks
        if stream_check:
            verifier = self._verifier(source, candidate, stream.root, stream_check)
            made = VerifiedStream(chunks, verifier, suffix=candidate.suffix)
            chunks = made.chunks()
        input_ = Input(
            archive=candidate,
            root=stream.root,
            client_root=stream.client_root,
            source_url=stream.url,
            chunks=chunks,
            measures=lambda: made.verified if made else None,
            completeness=lambda: Completeness.PROVEN,
        )
        piped = None if stream_check else stream.piped
        async with self._convert(source, input_, archive, progress, check, piped) as output:
            yield output

    @asynccontextmanager
    async def convert_copy(
        self,
        source: Source,
        relative: Archive,
        archive: Archive,
        manifest: Manifest,
        chunks: AsyncGenerator[bytes, None],
        progress: Progress,
    ) -> AsyncIterator[Output]:
        """Yield *archive* made from *chunks*, a region's copy of *relative*.

        The copy was verified when it was stored. Completeness is proven now, unless the *manifest*
        says that it was proven. Raises NoRoom before anything is read, and as
        ``Source.last_file``; reading the output raises if the copy is incomplete or unconvertible.
        """
        self._converter.require_room(
            original=relative, target=archive, size_bytes=manifest.size_bytes
        )
        progress.start()
        input_ = Input(
            archive=relative,
            root=manifest.root,
            client_root=manifest.root,
            source_url=manifest.source_url,
            chunks=progress.receive(chunks),
            measures=lambda: manifest,
            completeness=lambda: manifest.completeness or Completeness.TRUSTED,
            size_bytes=manifest.size_bytes,
        )
        async with AsyncExitStack() as stack:
            proven = manifest.completeness is Completeness.PROVEN
            if not proven and await source.last_file(relative) is not None:
                proof = await stack.enter_async_context(prove_completeness(source, relative))
                verifier = self._verifier(source, relative, manifest.root)
                copy = VerifiedStream(input_.chunks, verifier, proof, suffix=relative.suffix)
                input_ = replace(
                    input_, chunks=copy.chunks(), completeness=lambda: copy.completeness
                )
            converting = self._convert(source, input_, archive, progress)
            yield await stack.enter_async_context(converting)

    @asynccontextmanager
    async def _convert(
        self,
        source: Source,
        input_: Input,
        archive: Archive,
        progress: Progress,
        tree_check: TreeCheck | None = None,
        piped: PipedTar | None = None,
    ) -> AsyncIterator[Output]:
        with stage(SpanName.CONVERT, suffix=archive.suffix) as conversion:
            async with self._converter.convert(
                input_.chunks,
                original=input_.archive,
                target=archive,
                root=input_.root,
                client_root=input_.client_root,
                size_bytes=input_.size_bytes,
                piped=piped,
            ) as pieces:
                converted = measured(progress.convert(pieces), conversion)
                verifier = self._verifier(source, archive, input_.client_root, tree_check)
                yield Output(
                    stream=VerifiedStream(converted, verifier, suffix=archive.suffix),
                    source_url=input_.source_url,
                    input=input_,
                    converter=self._converter.version(archive.suffix),
                )

    def _verifier(
        self, source: Source, archive: Archive, root: str, tree: TreeCheck | None = None
    ) -> Verifier:
        identity = source.identity_check(archive)
        return self._verify(archive, root=root, identity=identity, tree=tree)
