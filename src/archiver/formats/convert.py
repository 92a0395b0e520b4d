"""Makes an archive of another one of the same tree: in another format, or a part of it."""

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from archiver.concurrency import ahead, in_steps, in_thread
from archiver.formats.packing import ZSTD_PIECE_BYTES, keep_freed_memory, library, packed
from archiver.formats.repack import FromTar, from_zip
from archiver.formats.selection import PIECE_BYTES, Selection
from archiver.formats.tar_writer import TarWriter
from archiver.formats.workspace import Workspace
from archiver.formats.zip_writer import ZipWriter
from archiver.model import Archive

VERSION = 2
"""To be raised by whoever changes the bytes that come out."""

PIECES_AHEAD = 4
"""How many MiB each stage may be ahead of the next, so that none of them waits."""


class Converter:
    """Implements ``ports.Converter``.

    Tars are converted as they come. A zip tells only at its end what its members are, so it has to
    be there whole: in the workspace.
    """

    def __init__(self, *, workspace: Workspace, threads: int) -> None:
        keep_freed_memory()
        self._workspace = workspace
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "compress")

    def version(self, suffix: str) -> str:
        return f"archiver {VERSION}, {library(suffix)}"

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        size_bytes: int = 0,
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with AsyncExitStack() as stack:
            selection = self._selection(given, wanted, root, stack)
            if given.suffix == "zip":
                pieces = self._unzipped(chunks, selection, size_bytes)
            else:
                pieces = _untarred(chunks, selection, given.suffix)
            if wanted.suffix != "zip":
                pieces = packed(
                    await stack.enter_async_context(ahead(pieces, PIECES_AHEAD)),
                    suffix=wanted.suffix,
                    pool=self._pool,
                    threads=self._threads,
                )
            yield await stack.enter_async_context(ahead(pieces, PIECES_AHEAD))

    def _selection(
        self, given: Archive, wanted: Archive, root: str, stack: AsyncExitStack
    ) -> Selection:
        if wanted.suffix == "zip":
            listing = stack.enter_context(self._workspace.spool())
            return Selection(
                given=given, wanted=wanted, root=root, writer=ZipWriter(listing=listing)
            )
        size = ZSTD_PIECE_BYTES if wanted.suffix == "tar.zst" else PIECE_BYTES
        return Selection(
            given=given, wanted=wanted, root=root, writer=TarWriter(), piece_bytes=size
        )

    async def _unzipped(
        self, chunks: AsyncGenerator[bytes, None], selection: Selection, size_bytes: int
    ) -> AsyncGenerator[bytes, None]:
        with self._workspace.spool(expected_bytes=size_bytes) as spool:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await in_thread(spool.write, chunk)
            async with aclosing(in_steps(from_zip(spool, selection))) as pieces:
                async for piece in pieces:
                    yield piece


async def _untarred(
    chunks: AsyncGenerator[bytes, None], selection: Selection, suffix: str
) -> AsyncGenerator[bytes, None]:
    tar = FromTar(suffix, selection)
    async with aclosing(chunks):
        async for chunk in chunks:
            async for piece in in_steps(tar.feed(chunk)):
                yield piece
    async for piece in in_steps(tar.close()):
        yield piece
