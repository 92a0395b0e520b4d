"""Walks through a zip from its first byte to its last, although its directory is at the end.

First come the members, each behind a header of its own: they are inflated and held against their
CRC. Then the directory has to list exactly them. Bytes that belong to neither have no place.
"""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
from isal import igzip_lib
from isal.isal_zlib import crc32

from archiver.errors import CorruptArchive, NotAnArchive, TruncatedArchive, UnsafeMember
from archiver.formats.archive_tree import NOTE_MAX_BYTES, Tree, shown
from archiver.formats.byte_reader import Incoming, Waiting
from archiver.formats.compression.decompress import IsalError
from archiver.formats.limits import Meter
from archiver.formats.symlinks import LINK_MAX_BYTES, Candidates, Links
from archiver.formats.zip.extraction_paths import Places
from archiver.formats.zip.member_kind import is_link
from archiver.formats.zip.records import (
    CENTRAL,
    CENTRAL_FIELDS,
    DESCRIPTOR,
    DESCRIPTOR_64_FIELDS,
    DESCRIPTOR_FIELDS,
    ENCRYPTED,
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
    UNDERSTOOD,
    VERSION_MAX,
    WIDE,
    Method,
    check_spelling,
    extra_field,
    widened,
)

WINDOW_BYTES = 16 * 1024
"""How much is read at a time. What turns out to lie behind a member's end is read again."""

STEP_BYTES = 64 * 1024
"""How much is inflated at a time."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What both a member's own header and the directory say of it."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    offset: int

    def foretells(self, described: "Entry") -> bool:
        """Tell whether nothing is said here of a member's measures but what is *described* later.

        Who reads a stream goes by what stands before a member.
        """
        return (
            self.crc in (0, described.crc)
            and self.packed_bytes in (0, described.packed_bytes)
            and self.unpacked_bytes in (0, described.unpacked_bytes)
        )


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


_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """Entries in their order, in little memory."""

    entries: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def enter(self, entry: Entry) -> None:
        self.entries += 1
        self.digest.update(_encode(entry))


def verify_zip(incoming: Incoming, *, tree: Tree, meter: Meter, links: Links) -> Waiting:
    """Read a zip to its end, see that its members belong to *tree*, and count them.

    Which of them are links stands in the directory alone, when their contents have long gone by;
    so of each of them is kept where it would lead if it were a link.

    Raises:
        BadArchive: It is cut, damaged, empty, of something else, or goes on after its end.
    """
    held, listed = _Ledger(), _Ledger()
    candidates, places = Candidates(links=links), Places()
    signature = yield from incoming.exactly(4)
    if signature != LOCAL:
        raise NotAnArchive("what the host sent does not begin as a zip with members does")
    while signature == LOCAL:
        meter.member()
        entry, start = yield from _member(incoming, tree, meter)
        held.enter(entry)
        candidates.add(entry.name, start)
        places.enter(entry.name, entry.flags)
        signature = yield from incoming.exactly(4)
    offset = incoming.position - 4
    while signature == CENTRAL:
        entry, is_symbolic = yield from _listing(incoming)
        places.check(entry.name)
        if is_symbolic:
            candidates.enter(listed.entries, entry.name)
        else:
            links.check_member(entry.name)
        listed.enter(entry)
        signature = yield from incoming.exactly(4)
    if held.digest.digest() != listed.digest.digest():
        raise CorruptArchive("the zip's directory does not list what the zip holds")
    links.close()
    size = incoming.position - 4 - offset
    yield from _end(incoming, signature, (0, listed.entries, listed.entries, size, offset))
    yield from incoming.nothing()


def _member(
    incoming: Incoming, tree: Tree, meter: Meter
) -> Generator[None, None, tuple[Entry, bytes]]:
    """Return what a member is, and how what it holds begins."""
    offset = incoming.position - 4
    entry, wide = yield from _local_header(incoming, offset)
    tree.check_name(entry.name)
    is_note = not entry.name.endswith(b"/") and tree.enter(entry.name)
    contents = _Contents(meter=meter, keep=NOTE_MAX_BYTES if is_note else LINK_MAX_BYTES + 1)
    yield from _unpack(incoming, entry, contents)
    if entry.flags & SIZES_FOLLOW:
        described = yield from _descriptor(incoming, entry, wide=wide)
        if not entry.foretells(described):
            raise CorruptArchive("a member of the zip has one size before and another behind it")
        entry = described
    if not contents.fit(entry):
        raise CorruptArchive("a member of the zip is damaged")
    if contents.unpacked_bytes and entry.name.endswith(b"/"):
        raise UnsafeMember(f"the folder {shown(entry.name)} has contents, which readers leave out")
    if is_note:
        tree.check_note(contents.kept)
    return entry, contents.kept


def _local_header(incoming: Incoming, offset: int) -> Generator[None, None, tuple[Entry, bool]]:
    """Return what a member's own header says, and whether it has room for 64 bits."""
    block = yield from incoming.exactly(LOCAL_FIELDS.size)
    version, flags, method, _, crc, packed, unpacked, *sizes = LOCAL_FIELDS.unpack(block)
    name_size, extra_size = sizes
    _check_version(version)
    name = yield from incoming.exactly(name_size)
    extra = yield from incoming.exactly(extra_size)
    check_spelling(name, flags, extra)
    unpacked, packed = widened((unpacked, packed), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, extra_field(WIDE, extra) is not None


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
        raise CorruptArchive("the zip asks for a version of the format that not every reader knows")


def _unpack(incoming: Incoming, entry: Entry, contents: _Contents) -> Waiting:
    match entry.method:
        case _ if entry.flags & ENCRYPTED:
            raise CorruptArchive("the zip has an encrypted member")
        case _ if entry.flags & ~UNDERSTOOD:
            raise CorruptArchive("the zip has a member that is packed as no host does")
        case Method.DEFLATED:
            yield from _inflate(incoming, contents)
        case Method.STORED if not entry.flags & SIZES_FOLLOW:
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
    fields = DESCRIPTOR_64_FIELDS if wide else DESCRIPTOR_FIELDS
    start = yield from incoming.exactly(4)
    if start == DESCRIPTOR:
        block = yield from incoming.exactly(fields.size)
    else:
        block = start + (yield from incoming.exactly(fields.size - 4))
    crc, packed, unpacked = fields.unpack(block)
    return msgspec.structs.replace(
        entry,
        crc=crc,
        packed_bytes=packed,
        unpacked_bytes=unpacked,
    )


def _listing(incoming: Incoming) -> Generator[None, None, tuple[Entry, bool]]:
    """Return what the directory says of a member, and whether that is a link."""
    header = yield from incoming.exactly(CENTRAL_FIELDS.size)
    fields = CENTRAL_FIELDS.unpack(header)
    _, system, version, flags, method, _, crc, packed, unpacked, *sizes, attributes, offset = fields
    name_size, extra_size, comment_size, disk = sizes
    _check_version(version)
    if disk:
        raise _split()
    name = yield from incoming.exactly(name_size)
    extra = yield from incoming.exactly(extra_size)
    yield from incoming.skip(comment_size)
    check_spelling(name, flags, extra)
    unpacked, packed, offset = widened((unpacked, packed, offset), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, is_link(name, system, attributes)


_Directory: TypeAlias = tuple[int, int, int, int, int]
"""The disks that it is on, its number of entries, twice, its size and its offset."""


def _end(incoming: Incoming, signature: bytes, directory: _Directory) -> Waiting:
    """Read what follows the directory, and see that it leads back to it."""
    wide = signature == END_64
    if wide:
        yield from _end_64(incoming, directory)
        signature = yield from incoming.exactly(4)
    if signature != END:
        raise CorruptArchive("the zip has something else where its end ought to be")
    block = yield from incoming.exactly(END_FIELDS.size)
    *stated, comment_size = END_FIELDS.unpack(block)
    full = (FULL_32, FULL_16, FULL_16, FULL_32, FULL_32)
    for value, actual, elsewhere in zip(stated, directory, full, strict=True):
        if value != actual and not (wide and value == elsewhere):
            raise _disagreement()
    comment = yield from incoming.exactly(comment_size)
    # Readers look for the end from behind, and might find another one.
    if comment and END in block + comment:
        raise CorruptArchive("the zip's comment could be taken for its end")


def _end_64(incoming: Incoming, directory: _Directory) -> Waiting:
    offset = incoming.position - 4
    rest_size, _, _, *stated = END_64_FIELDS.unpack(
        (yield from incoming.exactly(END_64_FIELDS.size))
    )
    if rest_size != END_64_FIELDS.size - 8 or tuple(stated) != directory:
        raise _disagreement()
    signature = yield from incoming.exactly(4)
    disk, points_at, disks = LOCATOR_64_FIELDS.unpack(
        (yield from incoming.exactly(LOCATOR_64_FIELDS.size))
    )
    if signature != LOCATOR_64 or points_at != offset:
        raise _disagreement()
    if disk or disks != 1:
        raise _split()


def _split() -> CorruptArchive:
    return CorruptArchive("the zip says that it is one of several disks")


def _disagreement() -> CorruptArchive:
    return CorruptArchive("the zip's end does not fit its directory")
