"""Compresses a stream on every core that it is given."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard
from zlib_ng import zlib_ng

from archiver.formats.compression.blocks import Block, Bzip2Join, GzipJoin, Join, XzJoin
from archiver.formats.member import Output

ZSTD_LEVEL = 2
"""A quarter quicker than zstd's own choice, 3, and a fourteenth larger."""

ZSTD_PIECE_BYTES = 2 << 20
"""What zstd is best given at a time: it cuts by itself."""

BLOCKS_AHEAD = 2
AHEAD_BYTES = 8 << 20
"""So many blocks, or so many bytes, wait for a thread, so that no thread has to wait for one: small
files come slower than they are compressed, large ones quicker."""

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


def packed(pieces: Iterator[bytes], *, suffix: str, threads: int) -> Iterator[bytes]:
    """Yield the tar that *pieces* are, as *suffix* has it.

    The bytes depend on those of the tar alone: neither on how it is cut into pieces nor on how many
    *threads* are at work.
    """
    match suffix:
        case "tar":
            return pieces
        case "tar.zst":
            return _zstd(pieces, threads)
        case _:
            return _joined(pieces, _JOINS[suffix](), threads)


def _zstd(pieces: Iterator[bytes], threads: int) -> Iterator[bytes]:
    """Yield one frame. zstd has threads of its own: their number, if not 0, does not matter."""
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL, threads=threads, write_checksum=True)
    frame = compressor.compressobj()
    for piece in pieces:
        yield frame.compress(piece)
    yield frame.flush()


def _joined(pieces: Iterator[bytes], join: Join, threads: int) -> Iterator[bytes]:
    waiting: deque[tuple[Block, Future[bytes]]] = deque()
    ahead = max(BLOCKS_AHEAD, AHEAD_BYTES // join.block_bytes)
    yield join.head
    with ThreadPoolExecutor(threads, "compress") as pool:
        for block in _blocks(pieces, join.block_bytes):
            waiting.append((block, pool.submit(join.compress, block)))
            if len(waiting) >= threads + ahead:
                first, compressed = waiting.popleft()
                yield join.join(first, compressed.result())
        for block, compressed in waiting:
            yield join.join(block, compressed.result())
    yield join.tail()


def _blocks(pieces: Iterator[bytes], size: int) -> Iterator[Block]:
    """Yield what *pieces* are as blocks of *size* bytes, but for the last."""
    held, before = Output(), b""
    for piece in pieces:
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
