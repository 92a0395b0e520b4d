"""Reads what a zip says of its members: local headers, data descriptors and directory entries."""

from collections.abc import Generator

import msgspec

from archiver.errors import CorruptArchive
from archiver.formats.byte_reader import ByteReader
from archiver.formats.zip.member_kind import is_symlink
from archiver.formats.zip.records import (
    CENTRAL_FIELDS,
    DESCRIPTOR,
    DESCRIPTOR_64_FIELDS,
    DESCRIPTOR_FIELDS,
    LOCAL_FIELDS,
    VERSION_MAX,
    ZIP64,
    extra_field,
    require_unambiguous_name,
    resolve_zip64,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
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


def read_local_header(reader: ByteReader, offset: int) -> Generator[None, None, tuple[Entry, bool]]:
    """Return a member's local header, and whether it has 64-bit sizes."""
    block = yield from reader.read_exactly(LOCAL_FIELDS.size)
    version, flags, method, _, crc, packed, unpacked, *sizes = LOCAL_FIELDS.unpack(block)
    name_size, extra_size = sizes
    _require_known_version(version)
    name = yield from reader.read_exactly(name_size)
    extra = yield from reader.read_exactly(extra_size)
    require_unambiguous_name(name, flags, extra)
    unpacked, packed = resolve_zip64((unpacked, packed), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, extra_field(ZIP64, extra) is not None


def read_descriptor(
    reader: ByteReader, entry: Entry, *, zip64: bool
) -> Generator[None, None, Entry]:
    """Return *entry* with the CRC and sizes that follow the member (4.3.9).

    The signature of these fields is optional (4.3.9.3).
    """
    fields = DESCRIPTOR_64_FIELDS if zip64 else DESCRIPTOR_FIELDS
    start = yield from reader.read_exactly(4)
    if start == DESCRIPTOR:
        block = yield from reader.read_exactly(fields.size)
    else:
        block = start + (yield from reader.read_exactly(fields.size - 4))
    crc, packed, unpacked = fields.unpack(block)
    return msgspec.structs.replace(entry, crc=crc, packed_bytes=packed, unpacked_bytes=unpacked)


def read_directory_entry(reader: ByteReader) -> Generator[None, None, tuple[Entry, bool]]:
    """Return the directory's entry for a member, and whether the member is a symbolic link."""
    header = yield from reader.read_exactly(CENTRAL_FIELDS.size)
    fields = CENTRAL_FIELDS.unpack(header)
    _, system, version, flags, method, _, crc, packed, unpacked, *sizes, attributes, offset = fields
    name_size, extra_size, comment_size, disk = sizes
    _require_known_version(version)
    if disk:
        raise multiple_disks_error()
    name = yield from reader.read_exactly(name_size)
    extra = yield from reader.read_exactly(extra_size)
    yield from reader.skip(comment_size)
    require_unambiguous_name(name, flags, extra)
    unpacked, packed, offset = resolve_zip64((unpacked, packed, offset), extra)
    entry = _entry(name, flags, method, (crc, packed, unpacked, offset))
    return entry, is_symlink(name, system, attributes)


def multiple_disks_error() -> CorruptArchive:
    return CorruptArchive("the zip is a part of a zip on several disks")


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


def _require_known_version(version: int) -> None:
    if version > VERSION_MAX:
        raise CorruptArchive(
            f"the zip requires version {version / 10} of the format, which not every reader knows"
        )
