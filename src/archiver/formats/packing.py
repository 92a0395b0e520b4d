"""Compresses a stream on every core that it is given, off the event loop."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import aclosing

import zstandard
from zlib_ng import zlib_ng

from archiver.concurrency import in_thread
from archiver.formats.blocks import Block, Bzip2Join, GzipJoin, Join, XzJoin
from archiver.formats.member import Output

ZSTD_LEVEL = 2
"""A quarter quicker than zstd's own choice, 3, and a fourteenth larger."""

ZSTD_PIECE_BYTES = 2 << 20
"""What zstd is best given at a time: it cuts by itself, and needs no turn of the loop to do so."""

PIECE_BYTES = 1 << 20
"""What is handed on at a time: whoever reads it on has a price for each piece."""

BLOCKS_AHEAD = 2
"""How many wait for a thread, so that no thread has to wait for one."""

KEPT_BYTES = 4 << 20
"""Freed memory that the C library keeps, for every thread, rather than fetch it again."""

_JOINS: Mapping[str, Callable[[], Join]] = {
    "tar.gz": GzipJoin,
    "tar.bz2": Bzip2Join,
    "tar.xz": XzJoin,
}

_LIBZSTD = ".".join(map(str, zstandard.ZSTD_VERSION))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Have glibc keep up to twice KEPT_BYTES of what is freed, in place of some hundred KiB.

    It takes the largest block that was ever mapped and freed for what a process needs again
    (mallopt(3), M_MMAP_THRESHOLD). Else each piece of a stream comes on fresh pages, which the
    kernel has to clear: a tenth of the time that a conversion takes.
    """
    bytes(KEPT_BYTES)


async def packed(
    pieces: AsyncGenerator[bytes, None], *, suffix: str, pool: Executor, threads: int
) -> AsyncGenerator[bytes, None]:
    """Yield the tar that *pieces* are, as *suffix* has it.

    The bytes depend on those of the tar alone: neither on how it is cut into pieces nor on *pool*
    and *threads*, which say who works, and how many at a time.
    """
    async with aclosing(pieces):
        if suffix == "tar":
            stages = pieces
        elif suffix == "tar.zst":
            stages = _zstd(pieces, threads)
        else:
            stages = _joined(pieces, _JOINS[suffix](), pool, threads)
        async with aclosing(stages):
            async for piece in stages:
                yield piece


async def _zstd(pieces: AsyncIterator[bytes], threads: int) -> AsyncGenerator[bytes, None]:
    """Yield one frame. zstd has threads of its own: their number, if not 0, does not matter."""
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL, threads=threads, write_checksum=True)
    frame = compressor.compressobj()
    made = Output()
    async for piece in pieces:
        made.put(await in_thread(frame.compress, piece))
        if made.held_bytes >= PIECE_BYTES:
            yield made.rest()
    made.put(await in_thread(frame.flush))
    yield made.rest()


async def _joined(
    pieces: AsyncIterator[bytes], join: Join, pool: Executor, threads: int
) -> AsyncGenerator[bytes, None]:
    waiting: deque[tuple[Block, asyncio.Future[bytes]]] = deque()
    made = Output()
    made.put(join.head)
    loop = asyncio.get_running_loop()
    try:
        async for block in _blocks(pieces, join.block_bytes):
            waiting.append((block, loop.run_in_executor(pool, join.compress, block)))
            if len(waiting) >= threads + BLOCKS_AHEAD:
                first, compressed = waiting.popleft()
                made.put(join.join(first, await compressed))
            if made.held_bytes >= PIECE_BYTES:
                yield made.rest()
        while waiting:
            first, compressed = waiting.popleft()
            made.put(join.join(first, await compressed))
    finally:
        for _, compressed in waiting:
            compressed.cancel()
    made.put(join.tail())
    yield made.rest()


async def _blocks(pieces: AsyncIterator[bytes], size: int) -> AsyncGenerator[Block, None]:
    """Yield what *pieces* are as blocks of *size* bytes, but for the last."""
    held, before = Output(), b""
    async for piece in pieces:
        held.put(piece)
        while held.held_bytes > size:
            block = Block(data=held.take(size), before=before, last=False)
            before = block.tail
            yield block
    yield Block(data=held.rest(), before=before, last=True)


def library(suffix: str) -> str:
    """Return which library, in which version, decides on the bytes of *suffix*."""
    match suffix:
        case "tar.gz" | "zip":
            return f"zlib-ng {zlib_ng.ZLIBNG_RUNTIME_VERSION}"
        case "tar.zst":
            return f"libzstd {_LIBZSTD}"
        case "tar.xz":
            return "liblzma"
        case "tar.bz2":
            return "libbz2"
        case _:
            return "no library"
