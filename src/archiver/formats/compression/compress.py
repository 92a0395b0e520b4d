"""Compresses a tar stream on several cores."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard
from zlib_ng import zlib_ng

from archiver.formats.compression.blocks import Block, Bzip2Joiner, GzipJoiner, Joiner, XzJoiner
from archiver.formats.member import OutputBuffer

ZSTD_LEVEL = 2
"""A quarter faster than zstd's default of 3, and one fourteenth larger."""

ZSTD_PIECE_BYTES = 2 << 20
"""The best input size for zstd, which splits its input by itself."""

BLOCKS_AHEAD = 2
AHEAD_BYTES = 8 << 20
"""How many blocks, or bytes if that is more, wait for a thread, so that no thread runs idle: small
files arrive slower than they are compressed, large ones faster."""

KEPT_BYTES = 4 << 20
"""Freed memory that the C library keeps per thread."""

_JOINERS: Mapping[str, Callable[[], Joiner]] = {
    "tar.gz": GzipJoiner,
    "tar.bz2": Bzip2Joiner,
    "tar.xz": XzJoiner,
}


_ZLIB = f"zlib-ng {zlib_ng.ZLIBNG_RUNTIME_VERSION}"
_LIBRARIES: Mapping[str, str] = {
    "zip": _ZLIB,
    "tar.gz": _ZLIB,
    "tar.bz2": "libbz2",
    "tar.xz": "liblzma",
    "tar.zst": "libzstd " + ".".join(map(str, zstandard.ZSTD_VERSION)),
}


def keep_freed_memory() -> None:
    """Have glibc keep up to twice KEPT_BYTES of freed memory, instead of some hundred KiB.

    glibc raises its limit to the size of the largest block that was mapped and freed (mallopt(3),
    M_MMAP_THRESHOLD). Otherwise the kernel has to clear new pages for each piece of a stream, which
    takes a tenth of the time of a conversion.
    """
    bytes(KEPT_BYTES)


def compress_tar(pieces: Iterator[bytes], *, suffix: str, threads: int) -> Iterator[bytes]:
    """Yield the tar in *pieces*, compressed according to *suffix*.

    The bytes depend on the tar alone, not on the size of its pieces or the number of *threads*.
    """
    if suffix in _JOINERS:
        return _compress_blocks(pieces, _JOINERS[suffix](), threads)
    return _compress_zstd(pieces, threads) if suffix == "tar.zst" else pieces


def _compress_zstd(pieces: Iterator[bytes], threads: int) -> Iterator[bytes]:
    """Yield one frame. Any number of zstd's own threads but 0 produces the same bytes."""
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL, threads=threads, write_checksum=True)
    frame = compressor.compressobj()
    for piece in pieces:
        yield frame.compress(piece)
    yield frame.flush()


def _compress_blocks(pieces: Iterator[bytes], joiner: Joiner, threads: int) -> Iterator[bytes]:
    pending: deque[tuple[Block, Future[bytes]]] = deque()
    ahead = max(BLOCKS_AHEAD, AHEAD_BYTES // joiner.block_bytes)
    yield joiner.head
    with ThreadPoolExecutor(threads, "compress") as pool:
        for block in _iter_blocks(pieces, joiner.block_bytes):
            pending.append((block, pool.submit(joiner.compress, block)))
            if len(pending) >= threads + ahead:
                first, compressed = pending.popleft()
                yield joiner.join(first, compressed.result())
        for block, compressed in pending:
            yield joiner.join(block, compressed.result())
    yield joiner.tail()


def _iter_blocks(pieces: Iterator[bytes], size: int) -> Iterator[Block]:
    buffer, before = OutputBuffer(), b""
    for piece in pieces:
        buffer.append(piece)
        while buffer.held_bytes > size:
            block = Block(data=buffer.take(size), before=before, last=False)
            before = block.tail
            yield block
    yield Block(data=buffer.take_all(), before=before, last=True)


def library_version(suffix: str) -> str:
    """Return the library that determines the bytes of *suffix*, with its version if it matters."""
    return _LIBRARIES.get(suffix, "no library")
