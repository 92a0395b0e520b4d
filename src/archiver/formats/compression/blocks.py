"""Compresses a stream block by block, side by side, into what one compressor might have written.

Each block is compressed for itself, in any thread, and the pieces are joined in their order. So the
result depends on the bytes alone and not on how many threads there were; and it is one gzip member,
one xz stream, one bzip2 stream, since many readers stop after the first one.

Formats: RFC 1951 and 1952; https://tukaani.org/xz/xz-file-format.txt; bzip2 has none but
https://github.com/dsnet/compress/blob/master/doc/bzip2-format.pdf.
"""

import bz2
import lzma
import zlib
from dataclasses import dataclass
from typing import Protocol

from isal import isal_zlib
from zlib_ng import zlib_ng

BLOCK_BYTES = 1 << 20
"""Of what is deflated. Smaller ones would cost more, larger ones would keep few threads busy."""

REACH_BYTES = 32 * 1024
"""How far deflate looks back, also into the block before."""

DEFLATE_LEVEL = 2
"""The quickest that packs as well as others do. zlib-ng, since it makes the same bytes on every
processor: those of isal hang on the instructions that it finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a stream; ``before`` is what came just before it, ``last`` whether it ends it."""

    data: bytes
    before: bytes
    last: bool

    @property
    def tail(self) -> bytes:
        """What is ``before`` the next one."""
        if len(self.data) >= REACH_BYTES:
            return self.data[-REACH_BYTES:]
        return (self.before + self.data)[-REACH_BYTES:]


class Join(Protocol):
    """Makes one stream of blocks. Blocks have ``block_bytes``, but for the last."""

    block_bytes: int
    head: bytes

    def compress(self, block: Block) -> bytes:
        """Return *block* compressed: in any thread, in any order."""

    def join(self, block: Block, compressed: bytes) -> bytes:
        """Return what comes next of the stream: block by block, in their order."""

    def tail(self) -> bytes: ...


def deflate(block: Block) -> bytes:
    """Return *block* as a part of a deflate stream: it ends on a byte."""
    compressor = zlib_ng.compressobj(
        DEFLATE_LEVEL, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS, zdict=block.before
    )
    # All at once: what comes out may depend on how it was handed in.
    packed = compressor.compress(block.data)
    return packed + compressor.flush(zlib_ng.Z_FINISH if block.last else zlib_ng.Z_SYNC_FLUSH)


class GzipJoin:
    """One gzip member (RFC 1952), with neither name nor time."""

    block_bytes = BLOCK_BYTES
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def __init__(self) -> None:
        self._crc = 0
        self._size_bytes = 0

    def compress(self, block: Block) -> bytes:
        return deflate(block)

    def join(self, block: Block, compressed: bytes) -> bytes:
        self._crc = isal_zlib.crc32(block.data, self._crc)
        self._size_bytes += len(block.data)
        return compressed

    def tail(self) -> bytes:
        size = self._size_bytes & 0xFFFFFFFF
        return self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")


class XzJoin:
    """One xz stream of many blocks, as ``xz --threads`` writes them."""

    block_bytes = 8 << 20
    preset = 3
    _flags = b"\0\4"  # CRC64
    _ends_bytes = 12

    head = b"\xfd7zXZ\0" + _flags + zlib.crc32(_flags).to_bytes(4, "little")

    def __init__(self) -> None:
        self._records: list[bytes] = []

    def compress(self, block: Block) -> bytes:
        return lzma.compress(block.data, check=lzma.CHECK_CRC64, preset=self.preset)

    def join(self, block: Block, compressed: bytes) -> bytes:
        """Take the one block out of its own stream: its size is in the index that follows it."""
        footer = compressed[-self._ends_bytes :]
        index_bytes = (int.from_bytes(footer[4:8], "little") + 1) * 4
        end = len(compressed) - self._ends_bytes - index_bytes
        index = compressed[end:]
        unpadded, _ = _parse_varint(index, 2)  # after the index's mark, and the number of records
        self._records.append(_varint(unpadded) + _varint(len(block.data)))
        return compressed[self._ends_bytes : end]

    def tail(self) -> bytes:
        index = b"\0" + _varint(len(self._records)) + b"".join(self._records)
        index += bytes(-len(index) % 4)
        index += zlib.crc32(index).to_bytes(4, "little")
        size = (len(index) // 4 - 1).to_bytes(4, "little") + self._flags
        return index + zlib.crc32(size).to_bytes(4, "little") + size + b"YZ"


def _varint(number: int) -> bytes:
    """Write a number as xz does: seven bits to a byte, the lowest first."""
    written = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the eighth bit says that more follows
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins *at* a place, and the place behind it."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
        shift += 7


class Bzip2Join:
    """One bzip2 stream. Its blocks end on any bit, so they have to be shifted into their places."""

    block_bytes = 719_984
    """bzip2 writes 4 equal bytes as 5, and has blocks of 899,981 bytes: so it makes one of each."""

    head = b"BZh9"

    _magic_bits, _crc_bits = 48, 32
    _end_magic = 0x177245385090

    def __init__(self) -> None:
        self._crc = 0
        self._rest = 0
        self._rest_bits = 0

    def compress(self, block: Block) -> bytes:
        return bz2.compress(block.data)

    def join(self, block: Block, compressed: bytes) -> bytes:
        del block
        stream = int.from_bytes(compressed[len(self.head) :], "big")
        bits = (len(compressed) - len(self.head)) * 8
        for padding in range(8):
            end_bits = self._magic_bits + self._crc_bits + padding
            if stream >> (padding + self._crc_bits) & ((1 << self._magic_bits) - 1) == (
                self._end_magic
            ):
                break
        else:
            raise AssertionError("a bzip2 stream without an end")
        crc = stream >> padding & 0xFFFFFFFF  # of a stream with one block it is the block's
        self._crc = ((self._crc << 1 | self._crc >> 31) & 0xFFFFFFFF) ^ crc
        return self._put(stream >> end_bits, bits - end_bits)

    def tail(self) -> bytes:
        end = self._put(self._end_magic << self._crc_bits | self._crc, 80)
        return end + self._put(0, -self._rest_bits % 8)

    def _put(self, value: int, bits: int) -> bytes:
        """Return the whole bytes that there are, now that *bits* more have come."""
        value |= self._rest << bits
        bits += self._rest_bits
        self._rest_bits = bits % 8
        self._rest = value & ((1 << self._rest_bits) - 1)
        return (value >> self._rest_bits).to_bytes(bits // 8, "big")
