"""Writes zips that are the same wherever they are written.

As hgweb does, it deflates every member, says behind it how large it is, and notes modes and links
in the directory. That grows in a file, since a tree may have millions of members.
"""

import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from isal.isal_zlib import crc32

from archiver.errors import NotConvertible
from archiver.formats.archive_tree import shown
from archiver.formats.compression.blocks import BLOCK_BYTES, Block, deflate
from archiver.formats.member import Kind, Member, Output
from archiver.formats.zip.records import (
    CENTRAL,
    CENTRAL_FIELDS,
    DESCRIPTOR,
    END,
    END_64,
    END_64_FIELDS,
    END_FIELDS,
    FULL_16,
    FULL_32,
    LOCAL,
    LOCAL_FIELDS,
    LOCATOR_64,
    LOCATOR_64_FIELDS,
    SIZES_FOLLOW,
    UNIX,
    UNIX_TIME,
    UTF_8,
    WIDE,
    Method,
)

VERSION, VERSION_WIDE = 20, 45
"""Of the format that a reader must know: for deflate, and for 64-bit values."""

PIECE_BYTES = 1 << 20

_TYPES = {Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK, Kind.FOLDER: stat.S_IFDIR}
_FOLDER_OF_DOS = 0x10
_WIDE_FROM_BYTES = FULL_32 - (1 << 24)
"""Unpacked. A member that is a little smaller might be a little larger when it is packed."""


class Listing(Protocol):
    """Where the directory waits for its place at the end."""

    def write(self, data: bytes) -> None: ...

    def read(self, piece_bytes: int) -> Iterator[bytes]: ...


@dataclass(slots=True)
class _Open:
    """The member that is being written."""

    member: Member
    name: bytes
    offset: int
    wide: bool
    crc: int = 0
    packed_bytes: int = 0
    unpacked_bytes: int = 0
    before: bytes = b""
    held: bytes = b""


class ZipWriter:
    """Implements ``Writer``."""

    def __init__(self, *, listing: Listing) -> None:
        self._listing = listing
        self._output = Output()
        self._entries = 0
        self._listed_bytes = 0
        self._open: _Open | None = None
        self.take = self._output.take

    def begin(self, member: Member) -> None:
        name = member.name + b"/" if member.kind is Kind.FOLDER else member.name
        if len(name) > FULL_16:
            raise NotConvertible(f"a zip cannot have names as long as {shown(member.name)}")
        self._end_member()
        self._open = _Open(
            member=member,
            name=name,
            offset=self._output.position,
            wide=member.size_bytes >= _WIDE_FROM_BYTES,
        )
        self._output.put(_local_header(self._open))
        if member.kind is Kind.LINK:
            self.write(member.link)

    def write(self, data: bytes) -> None:
        is_open = self._open
        assert is_open  # noqa: S101 - ``begin`` comes first
        is_open.crc = crc32(data, is_open.crc)
        is_open.unpacked_bytes += len(data)
        is_open.held += data
        while len(is_open.held) > BLOCK_BYTES:
            self._deflate(is_open, is_open.held[:BLOCK_BYTES], last=False)
            is_open.held = is_open.held[BLOCK_BYTES:]

    def finish(self) -> Iterator[bytes]:
        self._end_member()
        start = self._output.position
        yield self._output.rest()
        yield from self._listing.read(PIECE_BYTES)
        yield _end(self._entries, self._listed_bytes, start)

    def _end_member(self) -> None:
        if is_open := self._open:
            self._deflate(is_open, is_open.held, last=True)
            sizes = (is_open.packed_bytes, is_open.unpacked_bytes)
            width = 8 if is_open.wide else 4
            numbers = b"".join(size.to_bytes(width, "little") for size in sizes)
            self._output.put(DESCRIPTOR + is_open.crc.to_bytes(4, "little") + numbers)
            entry = _central_header(is_open)
            self._listing.write(entry)
            self._listed_bytes += len(entry)
            self._entries += 1

    def _deflate(self, is_open: _Open, data: bytes, *, last: bool) -> None:
        block = Block(data=data, before=is_open.before, last=last)
        packed = deflate(block)
        is_open.before = block.tail
        is_open.packed_bytes += len(packed)
        self._output.put(packed)


def _flags(name: bytes) -> int:
    try:
        name.decode()
    except UnicodeDecodeError:
        return SIZES_FOLLOW
    return SIZES_FOLLOW if name.isascii() else SIZES_FOLLOW | UTF_8


def _local_header(is_open: _Open) -> bytes:
    """Return the record before a member, whose sizes follow behind it."""
    extra = _extra(is_open.member, wide=bytes(16) if is_open.wide else b"")
    size = FULL_32 if is_open.wide else 0
    fields = LOCAL_FIELDS.pack(
        VERSION_WIDE if is_open.wide else VERSION,
        _flags(is_open.name),
        Method.DEFLATED,
        _stamp(is_open.member.mtime),
        0,
        size,
        size,
        len(is_open.name),
        len(extra),
    )
    return LOCAL + fields + is_open.name + extra


def _central_header(is_open: _Open) -> bytes:
    member = is_open.member
    numbers = (is_open.unpacked_bytes, is_open.packed_bytes, is_open.offset)
    wide = b"".join(n.to_bytes(8, "little") for n in numbers if n >= FULL_32)
    unpacked, packed, offset = (min(number, FULL_32) for number in numbers)
    extra = _extra(member, wide=wide)
    version = VERSION_WIDE if wide or is_open.wide else VERSION
    attributes = (_TYPES[member.kind] | member.mode) << 16
    fields = CENTRAL_FIELDS.pack(
        version,
        UNIX,
        version,
        _flags(is_open.name),
        Method.DEFLATED,
        _stamp(member.mtime),
        is_open.crc,
        packed,
        unpacked,
        len(is_open.name),
        len(extra),
        0,
        0,
        attributes | (_FOLDER_OF_DOS if member.kind is Kind.FOLDER else 0),
        offset,
    )
    return CENTRAL + fields + is_open.name + extra


def _extra(member: Member, *, wide: bytes) -> bytes:
    """Return the extra fields: the exact time, if it has room in 32 bits, and *wide* values."""
    extra = b""
    if -(1 << 31) <= member.mtime < 1 << 31:
        extra += _field(UNIX_TIME, b"\1" + member.mtime.to_bytes(4, "little", signed=True))
    return extra + (_field(WIDE, wide) if wide else b"")


def _field(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data


def _stamp(mtime: int) -> int:
    """Return DOS's date and time, in UTC, or what of them comes next: 1980 to 2107."""
    moment = time.gmtime(min(max(mtime, _DOS_FIRST), _DOS_LAST))
    date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    return date << 16 | moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2


_DOS_FIRST, _DOS_LAST = 315_532_800, 4_354_819_198


def _end(entries: int, size: int, offset: int) -> bytes:
    wide = b""
    if entries >= FULL_16 or size >= FULL_32 or offset >= FULL_32:
        rest = END_64_FIELDS.size - 8
        wide = END_64 + END_64_FIELDS.pack(
            rest, VERSION_WIDE, VERSION_WIDE, 0, entries, entries, size, offset
        )
        wide += LOCATOR_64 + LOCATOR_64_FIELDS.pack(0, offset + size, 1)
    few = min(entries, FULL_16)
    end = END_FIELDS.pack(0, few, few, min(size, FULL_32), min(offset, FULL_32), 0)
    return wide + END + end
