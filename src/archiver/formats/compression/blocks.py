"""Compresses blocks of a stream in parallel, and joins them to one gzip, xz or bzip2 stream.

Each block is compressed independently, in any thread, so the result does not depend on the number
of threads. It is a single gzip member, xz stream or bzip2 stream, since many readers stop after the
first one.

Formats: RFC 1951 and 1952; https://tukaani.org/xz/xz-file-format.txt; bzip2 is described in
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
"""Size of deflated blocks. Smaller ones have more overhead, larger ones occupy fewer threads."""

WINDOW_BYTES = 32 * 1024
"""How far deflate refers back, even into the previous block."""

DEFLATE_LEVEL = 2
"""The fastest level that compresses as well as other programs. zlib-ng writes the same bytes on
every processor; isal's depend on the available instructions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a stream. ``before`` precedes it; ``last`` marks the final block."""

    data: bytes
    before: bytes
    last: bool

    @property
    def tail(self) -> bytes:
        """``before`` of the next block."""
        if len(self.data) >= WINDOW_BYTES:
            return self.data[-WINDOW_BYTES:]
        return (self.before + self.data)[-WINDOW_BYTES:]


class Joiner(Protocol):
    """Joins compressed blocks to one stream. All blocks but the last have ``block_bytes``."""

    block_bytes: int
    head: bytes

    def compress(self, block: Block) -> bytes:
        """Return the compressed *block*. May be called in any thread and order."""

    def join(self, block: Block, compressed: bytes) -> bytes:
        """Return the next bytes of the stream. Must be called in the order of the blocks."""

    def tail(self) -> bytes: ...


def deflate(block: Block) -> bytes:
    """Return *block* as a part of a deflate stream, padded to a whole byte."""
    compressor = zlib_ng.compressobj(
        DEFLATE_LEVEL, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS, zdict=block.before
    )
    # In one call, since the output may depend on how the input is split.
    compressed = compressor.compress(block.data)
    return compressed + compressor.flush(zlib_ng.Z_FINISH if block.last else zlib_ng.Z_SYNC_FLUSH)


class GzipJoiner:
    """One gzip member (RFC 1952) without name and time."""

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


class XzJoiner:
    """One xz stream of many blocks, as ``xz --threads`` writes it."""

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
        """Extract the block from its own stream. Its size is in the index at the end."""
        footer = compressed[-self._ends_bytes :]
        index_bytes = (int.from_bytes(footer[4:8], "little") + 1) * 4
        end = len(compressed) - self._ends_bytes - index_bytes
        index = compressed[end:]
        unpadded, _ = _parse_varint(index, 2)  # after the index indicator and the number of records
        self._records.append(_encode_varint(unpadded) + _encode_varint(len(block.data)))
        return compressed[self._ends_bytes : end]

    def tail(self) -> bytes:
        index = b"\0" + _encode_varint(len(self._records)) + b"".join(self._records)
        index += bytes(-len(index) % 4)
        index += zlib.crc32(index).to_bytes(4, "little")
        size = (len(index) // 4 - 1).to_bytes(4, "little") + self._flags
        return index + zlib.crc32(size).to_bytes(4, "little") + size + b"YZ"


def _encode_varint(number: int) -> bytes:
    """Return *number* as xz encodes it: seven bits per byte, the lowest first."""
    encoded = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the eighth bit: more bytes follow
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at index *at*, and the index after it."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return number, at
        shift += 7


class Bzip2Joiner:
    """One bzip2 stream. Its blocks end at any bit, so they have to be shifted into place."""

    block_bytes = 719_984
    """bzip2 encodes 4 equal bytes as 5, and then fills blocks of 899,981 bytes. So a block of this
    size always fits into one of bzip2's."""

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
            raise AssertionError("the bzip2 stream has no end marker")
        crc = stream >> padding & 0xFFFFFFFF  # the stream's CRC is that of its only block
        self._crc = ((self._crc << 1 | self._crc >> 31) & 0xFFFFFFFF) ^ crc
        return self._put(stream >> end_bits, bits - end_bits)

    def tail(self) -> bytes:
        end = self._put(self._end_magic << self._crc_bits | self._crc, 80)
        return end + self._put(0, -self._rest_bits % 8)

    def _put(self, value: int, bits: int) -> bytes:
        """Append *bits* bits of *value*; return all complete bytes."""
        value |= self._rest << bits
        bits += self._rest_bits
        self._rest_bits = bits % 8
        self._rest = value & ((1 << self._rest_bits) - 1)
        return (value >> self._rest_bits).to_bytes(bits // 8, "big")
