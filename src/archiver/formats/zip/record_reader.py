"""Reads the records of a zip stream: local headers, descriptors, the directory and its end."""

import stat
from collections.abc import Generator
from typing import NamedTuple, TypeAlias

import msgspec

from archiver.errors import CorruptArchive, UnsafeMember
from archiver.formats.archive_tree import SPECIAL_BITS, shown, special_bits_error
from archiver.formats.byte_reader import ByteReader, Parsing
from archiver.formats.member import COMMENT_MAX_BYTES, is_plain
from archiver.formats.zip import records
from archiver.git_objects import RECORD_MAX_BYTES

Directory: TypeAlias = tuple[int, int, int, int, int]
"""As in the end record: disk numbers, number of entries (twice), size and offset."""

_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO})
_SYSTEMS_WITH_LINKS = frozenset({records.UNIX, records.MACOS})

_FOLDER_TYPES = frozenset({0, stat.S_IFDIR})
_OTHER_TYPES = frozenset({0, stat.S_IFREG, stat.S_IFLNK})
"""Accepted file types in the mode. 0 is that of systems without modes."""

_DOS_FOLDER = 0x10
_DOS_ATTRIBUTES = 0x27
"""Read-only, hidden, system and archive. unzip skips a member with the volume label bit (0x08)."""


class Entry(msgspec.Struct, frozen=True):
    """The fields that a member's local header and its directory entry have in common."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    offset: int

    def agrees_with(self, final: "Entry") -> bool:
        """Return whether this local header has no CRC and sizes, or those of *final*.

        Readers of a stream use the local header.
        """
        return (
            self.crc in (0, final.crc)
            and self.packed_bytes in (0, final.packed_bytes)
            and self.unpacked_bytes in (0, final.unpacked_bytes)
        )


class DirectoryEntry(NamedTuple):
    """A member in the directory. ``tail`` holds its last bytes, of the size of a LOCATOR_64."""

    entry: Entry
    is_link: bool
    tail: bytes


def _read_fields(
    reader: ByteReader, record: records.Record
) -> Generator[None, None, tuple[int, ...]]:
    return record.fields.unpack((yield from reader.read_exactly(record.fields.size)))


def read_local_header(reader: ByteReader, offset: int) -> Generator[None, None, tuple[Entry, bool]]:
    """Return a member's local header, and whether it has 64-bit sizes."""
    fields = yield from _read_fields(reader, records.LOCAL)
    version, flags, method, _, crc, packed, unpacked, *sizes = fields
    name_size, extra_size = sizes
    _require_known_version(version)
    name = yield from reader.read_exactly(name_size)
    extra = yield from reader.read_exactly(extra_size)
    records.require_unambiguous_name(name, flags, extra)
    unpacked, packed = records.resolve_zip64((unpacked, packed), extra)
    entry = Entry(name, flags, method, crc, packed, unpacked, offset)
    return entry, records.extra_field(records.ZIP64, extra) is not None


def read_descriptor(
    reader: ByteReader, entry: Entry, *, zip64: bool
) -> Generator[None, None, Entry]:
    """Return *entry* with the CRC and sizes that follow the member (4.3.9).

    The signature of these fields is optional (4.3.9.3).
    """
    fields = (records.DESCRIPTOR_64 if zip64 else records.DESCRIPTOR).fields
    start = yield from reader.read_exactly(4)
    if start == records.DESCRIPTOR.signature:
        block = yield from reader.read_exactly(fields.size)
    else:
        block = start + (yield from reader.read_exactly(fields.size - 4))
    crc, packed, unpacked = fields.unpack(block)
    return msgspec.structs.replace(entry, crc=crc, packed_bytes=packed, unpacked_bytes=unpacked)


def read_directory_entry(
    reader: ByteReader, *, first: bool
) -> Generator[None, None, DirectoryEntry]:
    """Return the directory's entry for a member. Only the *first* one may have a comment."""
    block = yield from reader.read_exactly(records.CENTRAL.fields.size)
    fields = records.CENTRAL.fields.unpack(block)
    _, system, version, flags, method, _, crc, packed, unpacked, *sizes, attributes, offset = fields
    name_size, extra_size, comment_size, disk = sizes
    _require_known_version(version)
    if disk:
        raise _multiple_disks()
    name = yield from reader.read_exactly(name_size)
    extra = yield from reader.read_exactly(extra_size)
    comment = yield from reader.read_exactly(comment_size)
    if comment and not (first and is_plain(comment, RECORD_MAX_BYTES)):
        raise CorruptArchive("a member of the zip has a comment, which no host writes")
    records.require_unambiguous_name(name, flags, extra)
    unpacked, packed, offset = records.resolve_zip64((unpacked, packed, offset), extra)
    entry = Entry(name, flags, method, crc, packed, unpacked, offset)
    tail = (block + name + extra + comment)[-records.LOCATOR_64.size :]
    return DirectoryEntry(entry, _is_symlink(name, system, attributes), tail)


def read_directory_end(
    reader: ByteReader, signature: bytes, directory: Directory, tail: bytes
) -> Parsing:
    """Read the end records after the first *signature*, and require that they match *directory*.

    *tail* holds the last bytes of the directory.
    """
    zip64 = signature == records.END_64.signature
    if zip64:
        yield from _read_zip64_end(reader, directory)
        signature = yield from reader.read_exactly(4)
    elif records.is_zip64(tail):
        raise CorruptArchive("the zip's directory ends like a record that only some readers follow")
    if signature != records.END.signature:
        raise CorruptArchive("the zip has no end record after its directory")
    block = yield from reader.read_exactly(records.END.fields.size)
    *stated, comment_size = records.END.fields.unpack(block)
    full = (records.FULL_32, records.FULL_16, records.FULL_16, records.FULL_32, records.FULL_32)
    for value, actual, in_zip64 in zip(stated, directory, full, strict=True):
        if value != actual and not (zip64 and value == in_zip64):
            raise _mismatch()
    comment = yield from reader.read_exactly(comment_size)
    # Readers search for the record from the end of the file, and may find another one. bsdtar does
    # not find one before a long comment.
    if comment and (records.END.signature in block or not is_plain(comment, COMMENT_MAX_BYTES)):
        raise CorruptArchive("the zip has a comment that hides its end record from some readers")


def _read_zip64_end(reader: ByteReader, directory: Directory) -> Parsing:
    offset = reader.position - 4
    rest_size, _, _, *stated = yield from _read_fields(reader, records.END_64)
    if rest_size != records.END_64.fields.size - 8 or tuple(stated) != directory:
        raise _mismatch()
    signature = yield from reader.read_exactly(4)
    disk, end_offset, disks = yield from _read_fields(reader, records.LOCATOR_64)
    if signature != records.LOCATOR_64.signature or end_offset != offset:
        raise _mismatch()
    if disk or disks != 1:
        raise _multiple_disks()


def _mismatch() -> CorruptArchive:
    return CorruptArchive("the zip's end record does not match its directory")


def _multiple_disks() -> CorruptArchive:
    return CorruptArchive("the zip is a part of a zip on several disks")


def _require_known_version(version: int) -> None:
    if version > records.VERSION_MAX:
        raise CorruptArchive(
            f"the zip requires version {version / 10} of the format, which not every reader knows"
        )


def _is_symlink(name: bytes, system: int, attributes: int) -> bool:
    """Return whether a member with these external *attributes* is a symbolic link.

    A zip states the kind of a member up to three times: in the Unix mode, in the DOS attributes,
    and by a trailing slash of the name. unzip and Python use the slash, bsdtar the mode or the DOS
    attributes. Raises CorruptArchive if these disagree, and UnsafeMember for a device or a special
    bit.
    """
    mode = attributes >> 16
    kind = stat.S_IFMT(mode)
    if kind in _DEVICES:
        raise UnsafeMember(f"the member {shown(name)} is a device")
    if mode & SPECIAL_BITS:
        raise special_bits_error(name)
    is_folder = name.endswith(b"/")
    allowed = _DOS_ATTRIBUTES | (_DOS_FOLDER if is_folder else 0)
    if kind not in (_FOLDER_TYPES if is_folder else _OTHER_TYPES) or attributes & 0xFF & ~allowed:
        raise CorruptArchive(f"the member {shown(name)} is a file to some readers only")
    if kind == stat.S_IFLNK and system not in _SYSTEMS_WITH_LINKS:
        raise CorruptArchive(
            "the zip has a link from a system without links, which is a file to some readers"
        )
    return kind == stat.S_IFLNK
