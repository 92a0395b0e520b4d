"""Takes a zip apart that lies in a file, in little memory. It has to be a verified one.

Modes and links stand in its directory alone, at the end; so the directory and the members are read
side by side, each in one go.
"""

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from isal import igzip_lib
from isal.isal_zlib import crc32

from archiver.errors import CorruptArchive, NotConvertible
from archiver.formats.archive_tree import shown
from archiver.formats.compression.decompress import STEP_BYTES, IsalError
from archiver.formats.member import Kind, Member
from archiver.formats.tar.header import MODE_BITS
from archiver.formats.zip.records import (
    CENTRAL,
    END,
    END_64,
    END_64_FIELDS,
    END_FIELDS,
    FULL_16,
    FULL_32,
    LOCATOR_64,
    LOCATOR_64_FIELDS,
    UNIX_TIME,
    Method,
    extra_field,
    widened,
)

WINDOW_BYTES = 1 << 20
"""How much is read at a time."""

# 4.3.12 and 4.3.7, with their signatures; but for what nobody here reads.
_LISTING = struct.Struct("<4s6xHIIIIHHH4xII")
_LOCAL = struct.Struct("<26xHH")

_SIGNATURE_BYTES = 4
_TAIL_BYTES = FULL_16 + _SIGNATURE_BYTES + END_FIELDS.size
"""In so many bytes at the end is the record that tells where the directory is."""

_KIND_BITS = 0o170000
_KINDS = {0: Kind.FILE, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK}
_MODES = {Kind.FILE: 0o644, Kind.LINK: 0o777, Kind.FOLDER: 0o755}
"""For zips from systems without."""


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A member, and where in the zip its bytes are."""

    member: Member
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    offset: int


class _Cursor:
    """Reads on in a file, wherever others read in it."""

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

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes. Raises CorruptArchive if there are fewer."""
        end = self._at + size
        if end > len(self._window):
            self._start += self._at
            self._window = self._read(self._start, max(size, WINDOW_BYTES))
            self._at, end = 0, size
            if end > len(self._window):
                raise _damaged()
        taken = self._window[self._at : end]
        self._at = end
        return taken

    def _read(self, position: int, size: int) -> bytes:
        pieces = []
        while size and (piece := os.pread(self._descriptor, size, position)):
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return b"".join(pieces)


class Unzip:
    """The members of the zip in the file *descriptor*, of *size_bytes*."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._contents = _Cursor(descriptor)

    def __iter__(self) -> Iterator[Packed]:
        entries, offset = self._directory()
        directory = _Cursor(self._descriptor, offset)
        for _ in range(entries):
            yield self._entry(directory)

    def data(self, packed: Packed) -> Iterable[bytes]:
        """Return what *packed* holds, in pieces of at most STEP_BYTES.

        Raises:
            CorruptArchive: It is not what the directory says; maybe only when all pieces are taken.
        """
        contents = self._contents
        contents.seek(packed.offset)
        name_size, extra_size = _LOCAL.unpack(contents.take(_LOCAL.size))
        contents.take(name_size + extra_size)
        if max(packed.packed_bytes, packed.unpacked_bytes) <= STEP_BYTES:
            return (self._whole(packed),)
        return self._pieces_of(packed)

    def _whole(self, packed: Packed) -> bytes:
        """Return what a small member holds: most members are, and this is quicker."""
        data = self._contents.take(packed.packed_bytes)
        if packed.method != Method.STORED:
            data = _inflated_at_once(data, packed.unpacked_bytes)
        if len(data) != packed.unpacked_bytes or crc32(data) != packed.crc:
            raise _damaged()
        return data

    def _pieces_of(self, packed: Packed) -> Iterator[bytes]:
        pieces = self._pieces(packed.packed_bytes)
        size_bytes = crc = 0
        for piece in pieces if packed.method == Method.STORED else _inflated(pieces):
            crc = crc32(piece, crc)
            size_bytes += len(piece)
            yield piece
        if (crc, size_bytes) != (packed.crc, packed.unpacked_bytes):
            raise _damaged()

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._contents.take(min(size, WINDOW_BYTES))
            size -= len(piece)
            yield piece

    def _directory(self) -> tuple[int, int]:
        """Return how many entries the directory has, and where it begins."""
        start = max(0, self._size_bytes - _TAIL_BYTES)
        tail = _Cursor(self._descriptor, start).take(self._size_bytes - start)
        at = len(tail) - _SIGNATURE_BYTES - END_FIELDS.size
        if not tail.startswith(END, at):  # there is a comment; else its own numbers might spell END
            at = tail.rfind(END)
        if at < 0:
            raise _damaged()
        *_, entries, _, offset, _ = END_FIELDS.unpack_from(tail, at + _SIGNATURE_BYTES)
        if entries != FULL_16 and offset != FULL_32:
            return entries, offset
        return self._directory_64(start + at) or (entries, offset)

    def _directory_64(self, end: int) -> tuple[int, int] | None:
        """Return the same from the wide record, if one stands before the *end* record."""
        size = _SIGNATURE_BYTES + LOCATOR_64_FIELDS.size
        locator = _Cursor(self._descriptor, end - size).take(size)
        if not locator.startswith(LOCATOR_64):
            return None
        _, position, _ = LOCATOR_64_FIELDS.unpack_from(locator, _SIGNATURE_BYTES)
        record = _Cursor(self._descriptor, position).take(_SIGNATURE_BYTES + END_64_FIELDS.size)
        if not record.startswith(END_64):
            raise _damaged()
        *_, entries, _, offset = END_64_FIELDS.unpack_from(record, _SIGNATURE_BYTES)
        return entries, offset

    def _entry(self, directory: _Cursor) -> Packed:
        fields = _LISTING.unpack(directory.take(_LISTING.size))
        signature, method, stamp, crc, packed, unpacked, *sizes, attributes, offset = fields
        if signature != CENTRAL:
            raise _damaged()
        name_size, extra_size, comment_size = sizes
        name = directory.take(name_size)
        extra = directory.take(extra_size)
        directory.take(comment_size)
        unpacked, packed, offset = widened((unpacked, packed, offset), extra)
        kind = _kind(name, attributes >> 16)
        member = Member(
            name=name.rstrip(b"/"),
            kind=kind,
            mode=attributes >> 16 & MODE_BITS or _MODES[kind],
            mtime=_mtime(extra, stamp),
            size_bytes=unpacked if kind is Kind.FILE else 0,
        )
        return Packed(
            member=member,
            method=method,
            crc=crc,
            packed_bytes=packed,
            unpacked_bytes=unpacked,
            offset=offset,
        )


def _inflated_at_once(data: bytes, size_bytes: int) -> bytes:
    try:
        return igzip_lib.decompress(data, flag=igzip_lib.DECOMP_DEFLATE, bufsize=size_bytes + 1)
    except IsalError as exc:
        raise _damaged() from exc


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    while not inflater.eof:
        data = next(pieces, b"") if inflater.needs_input else b""
        if inflater.needs_input and not data:
            raise _damaged()
        try:
            yield inflater.decompress(data, STEP_BYTES)
        except IsalError as exc:
            raise _damaged() from exc


def _kind(name: bytes, mode: int) -> Kind:
    kind = Kind.FOLDER if name.endswith(b"/") else _KINDS.get(mode & _KIND_BITS)
    if kind is None:
        raise NotConvertible(f"the member {shown(name)} is neither file nor folder nor link")
    return kind


@lru_cache(maxsize=256)
def _mtime(extra: bytes, stamp: int) -> int:
    """Return the time of the last change: exact, or of DOS, whose time zone nobody knows."""
    exact = extra_field(UNIX_TIME, extra) if extra else None
    if exact and exact[0] & 1 and len(exact) >= 5:  # noqa: PLR2004 - flags, and four bytes of time
        return int.from_bytes(exact[1:5], "little", signed=True)
    date, time = stamp >> 16, stamp & FULL_16
    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            min(time % 32 * 2, 59),
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp())


def _damaged() -> CorruptArchive:
    return CorruptArchive("the zip was damaged while it waited to be converted")
