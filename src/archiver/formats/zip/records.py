"""The records of a zip, and what is in them.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. Each record begins with a
signature, which the structures leave out.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

from archiver.errors import CorruptArchive

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
DESCRIPTOR, END_64, LOCATOR_64 = b"PK\x07\x08", b"PK\x06\x06", b"PK\x06\x07"

# 4.3.7, 4.3.12, 4.3.9, 4.3.16, 4.3.14 and 4.3.15; what nobody here reads is left out. The numbers
# of two disks are read as one: both are 0 if there is but one.
LOCAL_FIELDS = struct.Struct("<BxHHIIIIHH")
CENTRAL_FIELDS = struct.Struct("<BBBxHHIIIIHHHHxxII")
DESCRIPTOR_FIELDS, DESCRIPTOR_64_FIELDS = struct.Struct("<III"), struct.Struct("<IQQ")
END_FIELDS = struct.Struct("<IHHIIH")
END_64_FIELDS = struct.Struct("<QHHQQQQQ")
LOCATOR_64_FIELDS = struct.Struct("<IQI")

_EXTRA_FIELDS = struct.Struct("<HH")

VERSION_MAX = 46
"""Of the format, in tenths (4.4.3.2). Info-ZIP's unzip skips a member that asks for more."""

ENCRYPTED, SIZES_FOLLOW, UTF_8 = 1 << 0, 1 << 3, 1 << 11
UNDERSTOOD = 0b110 | SIZES_FOLLOW | UTF_8
"""The flags (4.4.4) that readers do not stumble over. Two of them tell how hard deflate tried."""

FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
"""What stands in a narrow field whose value is in a wide one."""

WIDE, UNIX_TIME, UNICODE_PATH = 0x0001, 0x5455, 0x7075
"""Extra fields: 64-bit values (4.5.3); Info-ZIP's "universal time", whose first byte tells which
times follow: the lowest bit is that of the last modification; and a name that stands for the one in
the header (4.6.9), behind a version and a CRC of that."""

HARMLESS = frozenset({WIDE, UNIX_TIME, 0x7875, 0x7855, 0x5855, 0x000A, 0xCAFE})
"""The extra fields that are accepted: 64-bit values, times, the owner (Info-ZIP's three forms),
NTFS's times, and Java's empty mark. Other fields state a kind, a mode or a name that only some
readers obey: 0x6c78 makes a link of a file for bsdtar, and 0x756e does so for unzip."""

UNIX, MACOS = 3, 19
"""The systems (4.4.2) whose modes stand in the upper half of the external attributes."""


class Method(IntEnum):
    """How a member may be packed; the format knows many more."""

    STORED = 0
    DEFLATED = 8


def integer(data: bytes) -> int:
    return int.from_bytes(data, "little")


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the data of each of the *extra* fields of a header.

    Raises:
        CorruptArchive: A field does not end where the header does.
    """
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


def extra_field(wanted: int, extra: bytes) -> bytes | None:
    """Return one of the *extra* fields of a header, or None if it is not there."""
    return next((data for kind, data in extra_fields(extra) if kind == wanted), None)


def check_spelling(name: bytes, flags: int, extra: bytes) -> None:
    """Return if every reader takes a member with such a header for *name*, and can read the rest.

    Raises:
        CorruptArchive: Some readers would take it for something else, or could not read its name.
    """
    if extra and not (len(extra) == _TIME_BYTES and extra.startswith(_TIME_MARK)):
        _check_extra(extra)
    if flags & UTF_8 and not name.isascii():
        try:
            name.decode()
        except UnicodeDecodeError as exc:
            raise CorruptArchive("a name in the zip is not the UTF-8 that it should be") from exc


def _check_extra(extra: bytes) -> None:
    kinds = [kind for kind, _ in extra_fields(extra)]
    if UNICODE_PATH in kinds:
        raise CorruptArchive("a member of the zip has two names")
    if not HARMLESS.issuperset(kinds):
        raise CorruptArchive("a header in the zip has an extra field that only some readers obey")
    if len(set(kinds)) < len(kinds):
        raise CorruptArchive("a header in the zip has two extra fields of one kind")


_TIME_MARK = _EXTRA_FIELDS.pack(UNIX_TIME, 5)
_TIME_BYTES = len(_TIME_MARK) + 5
"""Of the one extra field that Mercurial and git write, and that needs no closer look."""

_WIDE_BYTES = 8
"""Of each value in the extra field for such."""


def widened(values: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
    """Return *values*, those of them from elsewhere that had no room (4.5.3 tells their order).

    Raises:
        CorruptArchive: That is no such number.
    """
    if FULL_32 not in values:
        return values
    wide = extra_field(WIDE, extra) or b""
    result = []
    for value in values:
        if value == FULL_32 and wide:
            if len(wide) < _WIDE_BYTES:
                raise CorruptArchive("a header in the zip is damaged")
            result.append(integer(wide[:_WIDE_BYTES]))
            wide = wide[_WIDE_BYTES:]
        else:
            result.append(value)
    return tuple(result)
