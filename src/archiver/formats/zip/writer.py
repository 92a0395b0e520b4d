"""Writes reproducible zips.

Like hgweb, the writer deflates every member, appends a data descriptor to it, and stores modes and
links in the directory. The directory grows in a file, since a tree may have millions of members.
"""

import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from isal.isal_zlib import crc32

from archiver.errors import NotConvertible
from archiver.formats.archive_tree import shown
from archiver.formats.compression.blocks import BLOCK_BYTES, Block, deflate
from archiver.formats.member import Comments, Member, MemberKind, OutputBuffer
from archiver.formats.workspace import Spool
from archiver.formats.zip import records

VERSION, VERSION_ZIP64 = 20, 45
"""Version of the format that a reader must support: for deflate, and for 64-bit values."""

PIECE_BYTES = 1 << 20

_TYPES = {
    MemberKind.FILE: stat.S_IFREG,
    MemberKind.LINK: stat.S_IFLNK,
    MemberKind.FOLDER: stat.S_IFDIR,
}
_DOS_FOLDER = 0x10
_ZIP64_FROM_BYTES = records.FULL_32 - (1 << 24)
"""Unpacked size from which a member has 64-bit sizes. It may be slightly larger when compressed."""


@dataclass(slots=True)
class _OpenMember:
    member: Member
    name: bytes
    offset: int
    zip64: bool
    crc: int = 0
    packed_bytes: int = 0
    unpacked_bytes: int = 0
    before: bytes = b""
    pending: bytes = b""


class ZipWriter:
    """Implements ``MemberWriter``."""

    def __init__(self, *, directory: Spool) -> None:
        self._directory = directory
        self._output = OutputBuffer()
        self._entries = 0
        self._directory_bytes = 0
        self._last_entry = b""
        self._open: _OpenMember | None = None
        self._comments = Comments()
        self.take_output = self._output.take

    def set_comments(self, comments: Comments) -> None:
        self._comments = comments

    def start_member(self, member: Member) -> None:
        name = member.name + b"/" if member.kind is MemberKind.FOLDER else member.name
        if len(name) > records.FULL_16:
            raise NotConvertible(
                f"the name of member {shown(member.name)} has more than {records.FULL_16:,} bytes"
            )
        self._end_member()
        self._open = _OpenMember(
            member=member,
            name=name,
            offset=self._output.total_bytes,
            zip64=member.size_bytes >= _ZIP64_FROM_BYTES,
        )
        self._output.append(_local_header(self._open))
        if member.kind is MemberKind.LINK:
            self.write(member.link)

    def write(self, data: bytes) -> None:
        current = self._open
        assert current  # noqa: S101 - ``start_member`` comes first
        current.crc = crc32(data, current.crc)
        current.unpacked_bytes += len(data)
        current.pending += data
        while len(current.pending) > BLOCK_BYTES:
            self._deflate(current, current.pending[:BLOCK_BYTES], last=False)
            current.pending = current.pending[BLOCK_BYTES:]

    def finish(self) -> Iterator[bytes]:
        self._end_member()
        if records.is_zip64(self._last_entry):
            raise NotConvertible("the name of the last member looks like a record of a zip")
        start = self._output.total_bytes
        yield self._output.take_all()
        yield from self._directory.iter_pieces(PIECE_BYTES)
        comment = self._comments.archive
        yield _end(self._entries, self._directory_bytes, start, len(comment)) + comment

    def _end_member(self) -> None:
        if current := self._open:
            self._deflate(current, current.pending, last=True)
            descriptor = records.DESCRIPTOR_64 if current.zip64 else records.DESCRIPTOR
            self._output.append(
                descriptor.pack(current.crc, current.packed_bytes, current.unpacked_bytes)
            )
            entry = _central_header(current, b"" if self._entries else self._comments.first_member)
            self._directory.write(entry)
            self._directory_bytes += len(entry)
            self._last_entry = entry
            self._entries += 1

    def _deflate(self, current: _OpenMember, data: bytes, *, last: bool) -> None:
        block = Block(data=data, before=current.before, last=last)
        packed = deflate(block)
        current.before = block.tail
        current.packed_bytes += len(packed)
        self._output.append(packed)


def _form(current: _OpenMember) -> tuple[int, int, int]:
    """Return what both headers of a member have in common: flags, method and time."""
    flags = records.SIZES_FOLLOW
    with suppress(UnicodeDecodeError):
        current.name.decode()
        flags |= 0 if current.name.isascii() else records.UTF_8
    return flags, records.Method.DEFLATED, _dos_time(current.member.mtime)


def _local_header(current: _OpenMember) -> bytes:
    """Return a member's local header. Its sizes follow after the content."""
    extra = _extra(current.member, wide=bytes(16) if current.zip64 else b"")
    version, size = (VERSION_ZIP64, records.FULL_32) if current.zip64 else (VERSION, 0)
    header = records.LOCAL.pack(
        version, *_form(current), 0, size, size, len(current.name), len(extra)
    )
    return header + current.name + extra


def _central_header(current: _OpenMember, comment: bytes) -> bytes:
    """Return a member's entry in the directory.

    A *comment* that would make the entry longer than readers accept (4.4.12) is left out.
    """
    member = current.member
    numbers = (current.unpacked_bytes, current.packed_bytes, current.offset)
    wide = b"".join(n.to_bytes(8, "little") for n in numbers if n >= records.FULL_32)
    unpacked, packed, offset = (min(number, records.FULL_32) for number in numbers)
    extra = _extra(member, wide=wide)
    version = VERSION_ZIP64 if wide or current.zip64 else VERSION
    attributes = (_TYPES[member.kind] | member.mode) << 16
    attributes |= _DOS_FOLDER if member.kind is MemberKind.FOLDER else 0
    rest = current.name + extra
    if records.CENTRAL.size + len(rest) + len(comment) > records.FULL_16:
        comment = b""
    measures = (current.crc, packed, unpacked, len(current.name), len(extra), len(comment))
    header = records.CENTRAL.pack(
        version, records.UNIX, version, *_form(current), *measures, 0, attributes, offset
    )
    return header + rest + comment


def _extra(member: Member, *, wide: bytes) -> bytes:
    """Return the extra fields: the exact time, if it fits into 32 bits, and the *wide* values."""
    extra = b""
    if -(1 << 31) <= member.mtime < 1 << 31:
        extra += _field(records.UNIX_TIME, b"\1" + member.mtime.to_bytes(4, "little", signed=True))
    return extra + (_field(records.ZIP64, wide) if wide else b"")


def _field(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data


def _dos_time(mtime: int) -> int:
    """Return DOS date and time, in UTC, limited to the years 1980 to 2107."""
    utc = time.gmtime(min(max(mtime, _DOS_FIRST), _DOS_LAST))
    date = (utc.tm_year - 1980) << 9 | utc.tm_mon << 5 | utc.tm_mday
    return date << 16 | utc.tm_hour << 11 | utc.tm_min << 5 | utc.tm_sec // 2


_DOS_FIRST, _DOS_LAST = 315_532_800, 4_354_819_198


def _end(entries: int, size: int, offset: int, comment_size: int) -> bytes:
    wide = b""
    if entries >= records.FULL_16 or size >= records.FULL_32 or offset >= records.FULL_32:
        rest = records.END_64.fields.size - 8
        wide = records.END_64.pack(
            rest, VERSION_ZIP64, VERSION_ZIP64, 0, entries, entries, size, offset
        )
        wide += records.LOCATOR_64.pack(0, offset + size, 1)
    few = min(entries, records.FULL_16)
    return wide + records.END.pack(
        0, few, few, min(size, records.FULL_32), min(offset, records.FULL_32), comment_size
    )
