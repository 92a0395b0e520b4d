"""Streams that report their progress, and end only if they are a whole archive.

The proof is the last file that the host lists. A host's packer writes files in order, and one that
fails in the middle may leave a sound zip behind.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from archiver.errors import (
    ArchiverError,
    BadArchive,
    CorruptArchive,
    IncompleteArchive,
    InternalError,
    NotAnArchive,
    NotPackable,
    TruncatedArchive,
)
from archiver.model import Archive, Completeness, Verified
from archiver.names import display_path
from archiver.ports.formats import Verifier
from archiver.ports.source import Source
from archiver.runtime.tasks import concurrently
from archiver.tasks import Phase
from archiver.telemetry.tracing import SpanName, stage

Report = Callable[[Phase, int], None]
"""Called with the current phase and the bytes processed in it."""


class Progress:
    """Progress of one attempt. ``broken`` is true if the input stream ended early.

    ``received_bytes`` is what the host sent before the stream began.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._receiving = False
        self._hidden = False
        self.received_bytes = 0
        self.broken = False

    def hide(self) -> None:
        """Report nothing from now on."""
        self._hidden = True

    def report(self, phase: Phase, size_bytes: int) -> None:
        if not self._hidden:
            self._report(phase, size_bytes)

    def start(self) -> None:
        """Report that fetching has started, before the first byte of the stream arrives."""
        self.report(Phase.FETCHING, self.received_bytes)

    def received(self, size_bytes: int) -> None:
        """Report what the host has sent so far, before the stream begins that is made of it."""
        self.received_bytes = size_bytes
        self.report(Phase.FETCHING, size_bytes)

    async def receive(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._receiving = True
        size_bytes = 0
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    self.report(Phase.FETCHING, size_bytes)
                    yield chunk
        except ArchiverError:
            self.broken = True
            raise
        self._receiving = False

    async def convert(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield *pieces* of output. They are reported once the whole input has arrived."""
        size_bytes = 0
        async for piece in pieces:
            size_bytes += len(piece)
            if not self._receiving:
                self.report(Phase.CONVERTING, size_bytes)
            yield piece


_CUT_SHORT = (NotAnArchive, TruncatedArchive, IncompleteArchive, CorruptArchive)
"""The errors of an archive that its host stopped sending."""


class CompletenessProof:
    """Compares the last file of a stream with the last file of the tree."""

    def __init__(
        self, source: Source, archive: Archive, last_file: asyncio.Task[bytes | None]
    ) -> None:
        self._source = source
        self._archive = archive
        self._last_file = last_file

    def raise_failure(self) -> None:
        """Raise the error of ``Source.last_file``, if it has already failed."""
        if self._last_file.done():
            self._last_file.result()

    async def conclude(self, last_file: bytes) -> Completeness:
        """Return how an archive that ends with *last_file* is known to be complete.

        Raises IncompleteArchive, or as ``Source.last_file``.
        """
        expected = await self._last_file
        if expected is None:
            return Completeness.TRUSTED
        if expected != last_file:
            end = f"with {display_path(last_file)}" if last_file else "before the first file"
            raise IncompleteArchive(
                f"the archive ends {end}, but its tree ends with {display_path(expected)}"
            )
        return Completeness.PROVEN

    async def explain(self, failure: BadArchive, last_file: bytes) -> NotPackable | None:
        """Return why the host always stops after *last_file*; None if a retry may succeed."""
        if isinstance(failure, _CUT_SHORT):
            with suppress(ArchiverError):
                return await self._source.explain_unpackable(self._archive, after=last_file)
        return None


@asynccontextmanager
async def prove_completeness(source: Source, archive: Archive) -> AsyncIterator[CompletenessProof]:
    """Yield the proof for *archive*. *source* looks up the last file while the block runs."""
    async with concurrently(source.last_file(archive)) as last_file:
        yield CompletenessProof(source, archive, last_file)


class VerifiedStream:
    """Passes chunks on after the verifier has read them; with a *proof*, checks completeness too.

    ``verified`` and ``completeness`` are known once all chunks were read.
    """

    def __init__(
        self,
        stream: AsyncGenerator[bytes, None],
        verifier: Verifier,
        proof: CompletenessProof | None = None,
        *,
        suffix: str,
    ) -> None:
        self._stream = stream
        self._suffix = suffix
        self._verifier = verifier
        self._proof = proof
        self._verified: Verified | None = None
        self.completeness = Completeness.TRUSTED

    @property
    def verified(self) -> Verified:
        if self._verified is None:
            raise InternalError("a stream was used before its end")
        return self._verified

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the chunks. The end means that the archive is whole.

        Otherwise raises BadArchive, NotPackable if it never will be, or as the stream and
        ``Source.last_file``.
        """
        with stage(SpanName.VERIFY, suffix=self._suffix) as verification:
            try:
                async with aclosing(self._stream):
                    async for chunk in self._stream:
                        await self._verifier.update(chunk)
                        if self._proof:
                            self._proof.raise_failure()
                        yield chunk
                verified = await self._verifier.finish()
                if self._proof:
                    self.completeness = await self._proof.conclude(verified.last_file)
            except BadArchive as exc:
                proof = self._proof
                if proof and (reason := await proof.explain(exc, self._verifier.last_file)):
                    raise reason from exc
                raise
            verification.set(size_bytes=verified.size_bytes)
        self._verified = verified
