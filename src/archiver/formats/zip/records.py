"""The records of a zip: signatures, structures, flags and extra fields.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from archiver.errors import CorruptArchive


@dataclass(frozen=True, slots=True)
class Record:
    """A record's signature, and its fields after the signature."""

    signature: bytes
    fields: struct.Struct

    @property
    def size(self) -> int:
        return len(self.signature) + self.fields.size

    def pack(self, *values: int) -> bytes:
        return self.signature + self.fields.pack(*values)

    def unpack(self, data: bytes, at: int = 0) -> tuple[int, ...]:
        """Return the fields of the record at index *at*. Raises CorruptArchive if none is there."""
        if not data.startswith(self.signature, at):
            raise CorruptArchive("the stored zip is damaged")
        return self.fields.unpack_from(data, at + len(self.signature))


# 4.3.7, 4.3.12, 4.3.9, 4.3.16, 4.3.14 and 4.3.15, without fields that are not used here. Two disk
# numbers are combined to one field: both are 0 unless there are several disks.
LOCAL = Record(b"PK\x03\x04", struct.Struct("<BxHHIIIIHH"))
CENTRAL = Record(b"PK\x01\x02", struct.Struct("<BBBxHHIIIIHHHHxxII"))
DESCRIPTOR = Record(b"PK\x07\x08", struct.Struct("<III"))
DESCRIPTOR_64 = Record(DESCRIPTOR.signature, struct.Struct("<IQQ"))
END = Record(b"PK\x05\x06", struct.Struct("<IHHIIH"))
END_64 = Record(b"PK\x06\x06", struct.Struct("<QHHQQQQQ"))
LOCATOR_64 = Record(b"PK\x06\x07", struct.Struct("<IQI"))

_EXTRA_FIELDS = struct.Struct("<HH")


def is_zip64(before_end: bytes) -> bool:
    """Return whether *before_end*, which stands directly before END, ends with a LOCATOR_64.

    The only rule for it, by which every reader here decides. Python and bsdtar follow such a
    locator always, unzip and Java only if END lacks a number.
    """
    return before_end[-LOCATOR_64.size :].startswith(LOCATOR_64.signature)


VERSION_MAX = 46
"""Version of the format in tenths (4.4.3.2). unzip skips members that need a higher one."""

ENCRYPTED, SIZES_FOLLOW, UTF_8 = 1 << 0, 1 << 3, 1 << 11
SUPPORTED_FLAGS = 0b110 | SIZES_FOLLOW | UTF_8
"""The flags (4.4.4) that all readers support. Two of them are the effort of deflate."""

FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
"""The value of a narrow field whose actual value is in a 64-bit field."""

ZIP64, UNIX_TIME, UNICODE_PATH = 0x0001, 0x5455, 0x7075
"""Extra fields: 64-bit values (4.5.3); Info-ZIP's "universal time", whose first byte has a bit for
each time that follows, the lowest for the last modification; and a name that replaces the one in
the header (4.6.9), after a version and a CRC of that one."""

ALLOWED_EXTRA_FIELDS = frozenset({ZIP64, UNIX_TIME, 0x7875, 0x7855, 0x5855, 0x000A, 0xCAFE})
"""Accepted extra fields: 64-bit values, times, the owner (Info-ZIP's three forms), NTFS's times,
and Java's empty marker. Other fields have a kind, a mode or a name that only some readers apply:
0x6c78 makes a file a link for bsdtar, and 0x756e for unzip."""

UNIX, MACOS = 3, 19
"""The systems (4.4.2) that store modes in the upper half of the external attributes."""


class Method(IntEnum):
    """The supported compression methods; the format has many more."""

    STORED = 0
    DEFLATED = 8


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the data of each of the *extra* fields. Raises CorruptArchive."""
    at = 0
    while len(extra) - at >= _EXTRA_FIELDS.size:
        kind, size = _EXTRA_FIELDS.unpack_from(extra, at)
        at += _EXTRA_FIELDS.size
        if size > len(extra) - at:
            raise CorruptArchive("a header in the zip is damaged")
        yield kind, extra[at : at + size]
        at += size
    if at != len(extra):
        raise CorruptArchive("a header in the zip is damaged")


def extra_field(kind: int, extra: bytes) -> bytes | None:
    """Return the *extra* field of this *kind*, or None if it does not exist."""
    return next((data for each, data in extra_fields(extra) if each == kind), None)


def require_unambiguous_name(name: bytes, flags: int, extra: bytes) -> None:
    """Return if every reader extracts a member with this header as *name*.

    Raises CorruptArchive if some readers apply an extra field that others ignore, or cannot decode
    the name.
    """
    if extra and not (len(extra) == _TIME_BYTES and extra.startswith(_TIME_MARK)):
        _check_extra(extra)
    if flags & UTF_8 and not name.isascii():
        try:
            name.decode()
        except UnicodeDecodeError as exc:
            raise CorruptArchive("a name in the zip is marked as UTF-8 and is not") from exc


def _check_extra(extra: bytes) -> None:
    kinds = [kind for kind, _ in extra_fields(extra)]
    if UNICODE_PATH in kinds:
        raise CorruptArchive("a member of the zip has two names")
    if not ALLOWED_EXTRA_FIELDS.issuperset(kinds):
        raise CorruptArchive("a header in the zip has an extra field that only some readers apply")
    if len(set(kinds)) < len(kinds):
        raise CorruptArchive("a header in the zip has two extra fields of one kind")


_TIME_MARK = _EXTRA_FIELDS.pack(UNIX_TIME, 5)
_TIME_BYTES = len(_TIME_MARK) + 5
"""Size of the only extra field that Mercurial and git write. A shortcut: it is always valid."""

_ZIP64_VALUE_BYTES = 8


def resolve_zip64(values: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
    """Return *values*, those of 64 bits from the *extra* field (4.5.3). Raises CorruptArchive."""
    if FULL_32 not in values:
        return values
    wide = extra_field(ZIP64, extra) or b""
    resolved = []
    for value in values:
        if value == FULL_32 and wide:
            if len(wide) < _ZIP64_VALUE_BYTES:
                raise CorruptArchive("a header in the zip is damaged")
            resolved.append(int.from_bytes(wide[:_ZIP64_VALUE_BYTES], "little"))
            wide = wide[_ZIP64_VALUE_BYTES:]
        else:
            resolved.append(value)
    return tuple(resolved)
