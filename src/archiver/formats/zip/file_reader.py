"""Reads the members of a zip file that was verified before, in little memory.

Modes and links are only in the directory at the end. So the directory and the members are read in
parallel, each sequentially.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from isal import igzip_lib
from isal.isal_zlib import crc32

from archiver.errors import CorruptArchive, NotConvertible
from archiver.formats.archive_tree import shown
from archiver.formats.compression.decompress import STEP_BYTES, IsalError
from archiver.formats.member import Comments, Member, MemberKind
from archiver.formats.tar.header import MODE_BITS
from archiver.formats.zip import records
from archiver.formats.zip.record_reader import Entry

WINDOW_BYTES = 1 << 20
"""How much is read at a time."""

_TAIL_BYTES = records.FULL_16 + records.END.size
"""The record with the offset of the directory is within this many bytes at the end."""

_KIND_BITS = 0o170000
_KINDS = {0: MemberKind.FILE, stat.S_IFREG: MemberKind.FILE, stat.S_IFLNK: MemberKind.LINK}
_MODES = {MemberKind.FILE: 0o644, MemberKind.LINK: 0o777, MemberKind.FOLDER: 0o755}
"""For zips from systems without modes."""


class _FileCursor:
    """Reads a file sequentially, independently of other cursors."""

    def __init__(self, descriptor: int, position: int = 0) -> None:
        self._descriptor = descriptor
        self._window = b""
        self._start = position
        self._at = 0

    def seek(self, position: int) -> None:
        if self._start <= position <= self._start + len(self._window):
            self._at = position - self._start
        else:
            self._window, self._start, self._at = b"", position, 0

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes. Raises CorruptArchive if there are fewer."""
        end = self._at + size
        if end > len(self._window):
            self._start += self._at
            self._window = self._read_at(self._start, max(size, WINDOW_BYTES))
            self._at, end = 0, size
            if end > len(self._window):
                raise _damaged()
        data = self._window[self._at : end]
        self._at = end
        return data

    def _read_at(self, position: int, size: int) -> bytes:
        pieces = []
        while size and (piece := os.pread(self._descriptor, size, position)):
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return b"".join(pieces)


class _End(NamedTuple):
    """The number of entries in the directory, its offset, and the archive's comment."""

    entries: int
    offset: int
    comment: bytes


class ZipFileReader:
    """Iterates over the members of the zip in the file *descriptor*, of *size_bytes*.

    ``systems`` are those (4.4.2) of the members so far: readers apply modes of UNIX alike.
    """

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._contents = _FileCursor(descriptor)
        self.systems: set[int] = set()

    def __iter__(self) -> Iterator[tuple[Member, Entry]]:
        end = self._find_end()
        directory = _FileCursor(self._descriptor, end.offset)
        for _ in range(end.entries):
            yield self._read_entry(directory)

    def comments(self) -> Comments:
        """Return the comments of the archive and of its first member."""
        end = self._find_end()
        directory = _FileCursor(self._descriptor, end.offset)
        fields = records.CENTRAL.unpack(directory.read(records.CENTRAL.size))
        name_size, extra_size, comment_size, *_ = fields[-6:]
        directory.read(name_size + extra_size)
        return Comments(archive=end.comment, first_member=directory.read(comment_size))

    def iter_content(self, entry: Entry) -> Iterable[bytes]:
        """Return the content of *entry*, in pieces of at most STEP_BYTES.

        Raises:
            CorruptArchive: It does not match the directory. May be raised after the last piece.
        """
        contents = self._contents
        contents.seek(entry.offset)
        *_, name_size, extra_size = records.LOCAL.unpack(contents.read(records.LOCAL.size))
        contents.read(name_size + extra_size)
        if max(entry.packed_bytes, entry.unpacked_bytes) <= STEP_BYTES:
            return (self._read_small(entry),)
        return self._iter_large(entry)

    def _read_small(self, entry: Entry) -> bytes:
        """Return the content of a small member at once. Faster, and most members are small."""
        data = self._contents.read(entry.packed_bytes)
        if entry.method != records.Method.STORED:
            data = _inflate_small(data, entry.unpacked_bytes)
        if len(data) != entry.unpacked_bytes or crc32(data) != entry.crc:
            raise _damaged()
        return data

    def _iter_large(self, entry: Entry) -> Iterator[bytes]:
        pieces = self._iter_packed(entry.packed_bytes)
        size_bytes = crc = 0
        for piece in pieces if entry.method == records.Method.STORED else _inflate(pieces):
            crc = crc32(piece, crc)
            size_bytes += len(piece)
            yield piece
        if (crc, size_bytes) != (entry.crc, entry.unpacked_bytes):
            raise _damaged()

    def _iter_packed(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._contents.read(min(size, WINDOW_BYTES))
            size -= len(piece)
            yield piece

    def _find_end(self) -> "_End":
        start = max(0, self._size_bytes - _TAIL_BYTES)
        tail = _FileCursor(self._descriptor, start).read(self._size_bytes - start)
        at = len(tail) - records.END.size
        if not tail.startswith(records.END.signature, at):
            # There is a comment. Without one, numbers of the record itself may look like END.
            at = tail.rfind(records.END.signature)
        if at < 0:
            raise _damaged()
        *_, entries, _, offset, _ = records.END.unpack(tail, at)
        if locator := self._read_locator(start + at):
            entries, offset = self._read_zip64_end(locator)
        return _End(entries=entries, offset=offset, comment=tail[at + records.END.size :])

    def _read_locator(self, end: int) -> bytes:
        """Return the locator of the ZIP64 record before the *end* record, or nothing."""
        size = min(end, records.LOCATOR_64.size)
        before = _FileCursor(self._descriptor, end - size).read(size)
        return before if records.is_zip64(before) else b""

    def _read_zip64_end(self, locator: bytes) -> tuple[int, int]:
        """Return the number of entries, and the offset of the directory."""
        _, position, _ = records.LOCATOR_64.unpack(locator)
        record = _FileCursor(self._descriptor, position).read(records.END_64.size)
        *_, entries, _, offset = records.END_64.unpack(record)
        return entries, offset

    def _read_entry(self, directory: _FileCursor) -> tuple[Member, Entry]:
        _, system, _, *fields = records.CENTRAL.unpack(directory.read(records.CENTRAL.size))
        self.systems.add(system)
        flags, method, stamp, crc, packed, unpacked, *sizes, attributes, offset = fields
        name_size, extra_size, comment_size, _ = sizes
        name = directory.read(name_size)
        extra = directory.read(extra_size)
        directory.read(comment_size)
        unpacked, packed, offset = records.resolve_zip64((unpacked, packed, offset), extra)
        kind = _kind(name, attributes >> 16)
        member = Member(
            name=name.rstrip(b"/"),
            kind=kind,
            mode=attributes >> 16 & MODE_BITS or _MODES[kind],
            mtime=_mtime(extra, stamp),
            size_bytes=unpacked if kind is MemberKind.FILE else 0,
        )
        return member, Entry(name, flags, method, crc, packed, unpacked, offset)


def _inflate_small(data: bytes, size_bytes: int) -> bytes:
    try:
        return igzip_lib.decompress(data, flag=igzip_lib.DECOMP_DEFLATE, bufsize=size_bytes + 1)
    except IsalError as exc:
        raise _damaged() from exc


def _inflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    while not inflater.eof:
        data = next(pieces, b"") if inflater.needs_input else b""
        if inflater.needs_input and not data:
            raise _damaged()
        try:
            yield inflater.decompress(data, STEP_BYTES)
        except IsalError as exc:
            raise _damaged() from exc


def _kind(name: bytes, mode: int) -> MemberKind:
    kind = MemberKind.FOLDER if name.endswith(b"/") else _KINDS.get(mode & _KIND_BITS)
    if kind is None:
        raise NotConvertible(f"the member {shown(name)} is not a file, a folder or a link")
    return kind


@lru_cache(maxsize=256)
def _mtime(extra: bytes, stamp: int) -> int:
    """Return the modification time: exact, or the DOS time, taken as UTC as it has no time zone."""
    exact = records.extra_field(records.UNIX_TIME, extra) if extra else None
    if exact and exact[0] & 1 and len(exact) >= 5:  # noqa: PLR2004 - flags, and four bytes of time
        return int.from_bytes(exact[1:5], "little", signed=True)
    date, time = stamp >> 16, stamp & records.FULL_16
    try:
        day = datetime(1980 + (date >> 9), date >> 5 & 15, date & 31, tzinfo=UTC)
        moment = day.replace(hour=time >> 11, minute=time >> 5 & 63, second=min(time % 32 * 2, 59))
    except ValueError:
        return 0
    return int(moment.timestamp())


def _damaged() -> CorruptArchive:
    return CorruptArchive("the stored zip is damaged")
