"""Walks through a zip from its first byte to its last, although its directory is at the end.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, with its 64-bit extensions.
First come the members, each behind a header of its own: they are inflated and held against their
CRC. Then the directory has to list exactly them. Bytes that belong to neither have no place.
"""

import hashlib
import stat
import struct
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from zlib import crc32

from isal import igzip_lib

from archiver.errors import CorruptArchive, NotAnArchive, TruncatedArchive
from archiver.formats.compression import IsalError
from archiver.formats.incoming import Incoming, Waiting
from archiver.formats.meter import Meter
from archiver.formats.tree import LINK_MAX_BYTES, NOTE_MAX_BYTES, Tree, unsafe_link

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
DESCRIPTOR, END_64, LOCATOR_64 = b"PK\x07\x08", b"PK\x06\x06", b"PK\x06\x07"

WINDOW_BYTES = 16 * 1024
"""How much is read at a time. What turns out to lie behind a member's end is read again."""

STEP_BYTES = 64 * 1024
"""How much is inflated at a time."""

# Without their signatures: 4.3.7, 4.3.12, 4.3.16, 4.3.14 and 4.3.15 of APPNOTE.
_LOCAL = struct.Struct("<BxHH4xIIIHH")
_CENTRAL = struct.Struct("<2xBxHH4xIIIHHH4xII")
_END = struct.Struct("<4xHHIIH")
_END_64 = struct.Struct("<Q12xQQQQ")
_LOCATOR_64 = struct.Struct("<4xQ4x")

VERSION_MAX = 63
"""Of the format, in tenths (4.4.3.2): readers refuse a member that asks for more."""

_ENCRYPTED, _SIZES_FOLLOW = 1 << 0, 1 << 3
_FIELD_64 = 1
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
"""What stands in a narrow field whose value is in a wide one."""


class Method(IntEnum):
    """How a member may be packed; the format knows many more."""

    STORED = 0
    DEFLATED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What both a member's own header and the directory say of it."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    offset: int


@dataclass(slots=True, kw_only=True)
class _Contents:
    """What a member turned out to be, and the first ``keep`` bytes of it."""

    meter: Meter
    keep: int
    kept: bytes = b""
    crc: int = 0
    packed_bytes: int = 0
    unpacked_bytes: int = 0

    def take(self, data: bytes) -> None:
        self.meter.unpack(len(data))
        self.crc = crc32(data, self.crc)
        self.unpacked_bytes += len(data)
        if len(self.kept) < self.keep:
            self.kept += data[: self.keep - len(self.kept)]

    def fit(self, entry: Entry) -> bool:
        stated = (entry.crc, entry.packed_bytes, entry.unpacked_bytes)
        return stated == (self.crc, self.packed_bytes, self.unpacked_bytes)


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """Entries in their order, in little memory."""

    entries: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    unfit_for_links: bytearray = field(default_factory=bytearray)

    def enter(self, entry: Entry) -> None:
        self.entries += 1
        self.digest.update(repr(entry).encode())


def walk(incoming: Incoming, *, tree: Tree, meter: Meter) -> Waiting:
    """Read a zip to its end, see that its members belong to *tree*, and count them.

    Which of them are links stands in the directory alone, when their contents have long gone by;
    so for each of them is kept, in a byte, whether it would make a link that leads out.

    Raises:
        BadArchive: It is cut, damaged, empty, of something else, or goes on after its end.
    """
    held, listed = _Ledger(), _Ledger()
    signature = yield from incoming.exactly(4)
    if signature != LOCAL:
        raise NotAnArchive("what the host sent does not begin as a zip with members does")
    while signature == LOCAL:
        meter.member()
        entry, unfit = yield from _member(incoming, tree, meter)
        held.enter(entry)
        held.unfit_for_links.append(unfit)
        signature = yield from incoming.exactly(4)
    offset = incoming.position - 4
    while signature == CENTRAL:
        entry, is_link = yield from _listing(incoming)
        if is_link and any(held.unfit_for_links[listed.entries : listed.entries + 1]):
            raise unsafe_link(entry.name)
        listed.enter(entry)
        signature = yield from incoming.exactly(4)
    if held.digest.digest() != listed.digest.digest():
        raise CorruptArchive("the zip's directory does not list what the zip holds")
    size = incoming.position - 4 - offset
    yield from _end(incoming, signature, (listed.entries, listed.entries, size, offset))
    yield from incoming.nothing()


def _member(
    incoming: Incoming, tree: Tree, meter: Meter
) -> Generator[None, None, tuple[Entry, bool]]:
    """Return what a member is, and whether, as a link, it would lead out of the root."""
    offset = incoming.position - 4
    entry, wide = yield from _local_header(incoming, offset)
    tree.check_name(entry.name)
    is_note = entry.name == tree.note
    contents = _Contents(meter=meter, keep=NOTE_MAX_BYTES if is_note else LINK_MAX_BYTES + 1)
    yield from _unpack(incoming, entry, contents)
    if entry.flags & _SIZES_FOLLOW:
        entry = yield from _descriptor(incoming, entry, wide=wide)
    if not contents.fit(entry):
        raise CorruptArchive("a member of the zip is damaged")
    if is_note:
        tree.check_note(contents.kept)
    # Few links and most texts have a line's end, which spares a look at every path in them.
    return entry, b"\n" in contents.kept or tree.leaves(entry.name, contents.kept)


def _local_header(incoming: Incoming, offset: int) -> Generator[None, None, tuple[Entry, bool]]:
    """Return what a member's own header says, and whether it has room for 64 bits."""
    block = yield from incoming.exactly(_LOCAL.size)
    version, flags, method, crc, packed, unpacked, name_size, extra_size = _LOCAL.unpack(block)
    _check_version(version)
    name = yield from incoming.exactly(name_size)
    extra = yield from incoming.exactly(extra_size)
    unpacked, packed = _widened((unpacked, packed), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, _field_64(extra) is not None


def _entry(name: bytes, flags: int, method: int, measures: tuple[int, int, int, int]) -> Entry:
    """Return the entry with these *measures*: CRC, packed and unpacked bytes, offset."""
    crc, packed, unpacked, offset = measures
    return Entry(
        name=name,
        flags=flags,
        method=method,
        crc=crc,
        packed_bytes=packed,
        unpacked_bytes=unpacked,
        offset=offset,
    )


def _check_version(version: int) -> None:
    if version > VERSION_MAX:
        raise CorruptArchive("the zip asks for a version of the format that does not exist")


def _unpack(incoming: Incoming, entry: Entry, contents: _Contents) -> Waiting:
    match entry.method:
        case _ if entry.flags & _ENCRYPTED:
            raise CorruptArchive("the zip has an encrypted member")
        case Method.DEFLATED:
            yield from _inflate(incoming, contents)
        case Method.STORED if not entry.flags & _SIZES_FOLLOW:
            yield from _copy(incoming, contents, entry.packed_bytes)
        case _:
            raise CorruptArchive("the zip has a member that is packed as no host does")


def _inflate(incoming: Incoming, contents: _Contents) -> Waiting:
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    while not inflater.eof:
        data = b""
        if inflater.needs_input:
            data = yield from incoming.some(WINDOW_BYTES)
            if not data:
                raise TruncatedArchive("the zip ended in the middle of a member")
        try:
            contents.take(inflater.decompress(data, STEP_BYTES))
        except IsalError as exc:
            raise CorruptArchive("a member of the zip is damaged") from exc
        contents.packed_bytes += len(data)
    contents.packed_bytes -= len(inflater.unused_data)
    incoming.unread(len(inflater.unused_data))


def _copy(incoming: Incoming, contents: _Contents, size: int) -> Waiting:
    while contents.packed_bytes < size:
        data = yield from incoming.some(min(size - contents.packed_bytes, STEP_BYTES))
        if not data:
            raise TruncatedArchive("the zip ended in the middle of a member")
        contents.packed_bytes += len(data)
        contents.take(data)


def _descriptor(incoming: Incoming, entry: Entry, *, wide: bool) -> Generator[None, None, Entry]:
    """Return *entry* as amended behind its member, where a signature may be missing (4.3.9.3)."""
    crc = yield from incoming.exactly(4)
    if crc == DESCRIPTOR:
        crc = yield from incoming.exactly(4)
    packed = yield from incoming.exactly(8 if wide else 4)
    unpacked = yield from incoming.exactly(8 if wide else 4)
    return replace(
        entry,
        crc=_integer(crc),
        packed_bytes=_integer(packed),
        unpacked_bytes=_integer(unpacked),
    )


def _listing(incoming: Incoming) -> Generator[None, None, tuple[Entry, bool]]:
    """Return what the directory says of a member, and whether that is a link."""
    header = yield from incoming.exactly(_CENTRAL.size)
    version, flags, method, crc, packed, unpacked, *sizes, attributes, offset = _CENTRAL.unpack(
        header
    )
    name_size, extra_size, comment_size = sizes
    _check_version(version)
    name = yield from incoming.exactly(name_size)
    extra = yield from incoming.exactly(extra_size)
    yield from incoming.skip(comment_size)
    unpacked, packed, offset = _widened((unpacked, packed, offset), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, stat.S_ISLNK(attributes >> 16)


def _end(incoming: Incoming, signature: bytes, directory: tuple[int, int, int, int]) -> Waiting:
    """Read what follows the directory, and see that it leads back to it.

    *directory* is its number of entries, twice, its size and its offset.
    """
    wide = signature == END_64
    if wide:
        yield from _end_64(incoming, directory)
        signature = yield from incoming.exactly(4)
    if signature != END:
        raise CorruptArchive("the zip has something else where its end ought to be")
    *stated, comment_size = _END.unpack((yield from incoming.exactly(_END.size)))
    full = (_FULL_16, _FULL_16, _FULL_32, _FULL_32)
    for value, actual, elsewhere in zip(stated, directory, full, strict=True):
        if value != actual and not (wide and value == elsewhere):
            raise _disagreement()
    yield from incoming.skip(comment_size)


def _end_64(incoming: Incoming, directory: tuple[int, int, int, int]) -> Waiting:
    offset = incoming.position - 4
    rest_size, *stated = _END_64.unpack((yield from incoming.exactly(_END_64.size)))
    if rest_size != _END_64.size - 8 or tuple(stated) != directory:
        raise _disagreement()
    signature = yield from incoming.exactly(4)
    (points_at,) = _LOCATOR_64.unpack((yield from incoming.exactly(_LOCATOR_64.size)))
    if signature != LOCATOR_64 or points_at != offset:
        raise _disagreement()


def _disagreement() -> CorruptArchive:
    return CorruptArchive("the zip's end does not fit its directory")


def _widened(values: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
    """Return *values*, those of them from elsewhere that had no room (4.5.3 tells their order)."""
    wide = _field_64(extra) or b""
    widened = []
    for value in values:
        if value == _FULL_32 and wide:
            widened.append(_integer(wide[:8]))
            wide = wide[8:]
        else:
            widened.append(value)
    return tuple(widened)


def _field_64(extra: bytes) -> bytes | None:
    """Return the field for 64-bit values among the *extra* ones, or None if it is not there."""
    while len(extra) >= 4:  # noqa: PLR2004 - two bytes of kind, two of size
        kind, size = _integer(extra[:2]), _integer(extra[2:4])
        if size > len(extra) - 4:
            raise CorruptArchive("a header in the zip is damaged")
        if kind == _FIELD_64:
            return extra[4 : 4 + size]
        extra = extra[4 + size :]
    return None


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little")
