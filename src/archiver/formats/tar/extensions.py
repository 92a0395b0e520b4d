"""PAX and GNU headers that extend the next member's header, or all that follow.

Formats: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html and
https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.errors import CorruptArchive
from archiver.formats.member import Comments

EXTENSIONS = frozenset(b"xgLK")
"""Kinds of headers that are not members themselves."""

_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"xgLK"

_VALID_SEQUENCES = frozenset(
    first + rest for first in (b"", b"g") for rest in (b"", b"x", b"L", b"K", b"LK", b"KL")
)
"""The kinds of headers that writers put before one member. Readers disagree on all other sequences:
of two PAX headers, GNU tar and bsdtar apply only the last one, and Python applies both."""

_USED_KEYWORDS = frozenset({b"path", b"linkpath", b"size", b"mtime"})
"""The PAX keywords that matter here."""

_NOT_GLOBAL = frozenset({b"path", b"linkpath", b"size", b"hdrcharset"})
"""PAX keywords on which readers disagree in a global header."""

_TEXT = re.compile(rb"[^\0]*")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"-?[0-9]{1,19}(?:\.[0-9]{0,30})?")
_VALUES = {
    **dict.fromkeys((b"path", b"linkpath", b"uname", b"gname", b"comment"), _TEXT),
    **dict.fromkeys((b"size", b"uid", b"gid"), _NUMBER),
    **dict.fromkeys((b"mtime", b"atime", b"ctime"), _TIME),
    b"hdrcharset": re.compile(rb"BINARY|ISO-IR 10646 2000 UTF-8"),
}
"""The PAX keywords that hosts write, and their valid values.

Vendors have others, which some readers apply and others ignore: for another size
(``SCHILY.realsize``, ``GNU.sparse.*``), name, owner or permissions (ACLs, capabilities,
``LIBARCHIVE.*``).
"""

_RANGES = {
    **dict.fromkeys((b"uid", b"gid"), (0, (1 << 32) - 1)),
    b"size": (0, (1 << 63) - 1),
    **dict.fromkeys((b"mtime", b"atime", b"ctime"), (-1 << 62, 1 << 62)),
}
"""The ranges of the types that readers use. Python reads a PAX time as a float, which rounds."""

_KEYWORD_SHOWN_BYTES = 40

_LENGTH_MAX_DIGITS = 19
_NEWLINE = ord("\n")


@dataclass(slots=True, kw_only=True)
class Extensions:
    """What extension headers say about the next member, or about all that follow.

    ``announced`` holds the kinds of the headers since the last member. The comments are those
    of the last headers that have one.
    """

    next: dict[bytes, bytes] = field(default_factory=dict)
    all: dict[bytes, bytes] = field(default_factory=dict)
    announced: bytes = b""
    comment: bytes = b""
    global_comment: bytes = b""

    def announce(self, kind: int) -> None:
        """Record that a header of this *kind* comes next. Raises CorruptArchive if it may not."""
        self.announced += bytes((kind,))
        if self.announced not in _VALID_SEQUENCES:
            raise CorruptArchive("a member of the tar has headers that no host writes together")

    def add(self, kind: int, data: bytes) -> None:
        """Apply the content of a header, as far as it matters here. Raises CorruptArchive."""
        if kind == _LONG_NAME:
            self.next[b"path"] = data.partition(b"\0")[0]
        elif kind == _LONG_LINK:
            self.next[b"linkpath"] = data.partition(b"\0")[0]
        elif kind == _PAX:
            records = _parse_pax(data)
            self.comment = records.get(b"comment", b"")
            self.next.update(_used(records))
        elif kind == _PAX_GLOBAL:
            records = _parse_pax(data)
            if not _NOT_GLOBAL.isdisjoint(records):
                raise CorruptArchive("a header in the tar gives all members one name or size")
            self.global_comment = records.get(b"comment", b"")
            self.all.update(_used(records))

    @property
    def comments(self) -> Comments:
        """The comments of the archive and of the next member."""
        return Comments(archive=self.global_comment, first_member=self.comment)

    def pop(self) -> Mapping[bytes, bytes]:
        """Return the records for the next member, and forget those for this member alone."""
        self.announced = b""
        if not self.next:
            return self.all
        records = {**self.all, **self.next}
        self.next = {}
        return records


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a PAX header, each ``length keyword=value`` and a newline.

    A keyword may occur only once, as in what writers produce. This bounds the number of records.
    """
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        blank = data.find(b" ", start, start + _LENGTH_MAX_DIGITS + 1)
        end = start + parse_decimal(data[start:blank])
        equals = data.find(b"=", blank, end)
        if blank < 0 or equals < 0 or end > len(data) or data[end - 1] != _NEWLINE:
            raise _damaged_pax()
        keyword, value = data[blank + 1 : equals], data[equals + 1 : end - 1]
        _check_record(keyword, value)
        if keyword in records:
            raise CorruptArchive("a PAX header in the tar has one keyword twice")
        records[keyword] = value
        start = end
    return records


def _used(records: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    return {keyword: value for keyword, value in records.items() if keyword in _USED_KEYWORDS}


def _check_record(keyword: bytes, value: bytes) -> None:
    """Return if hosts write such a record. Raises CorruptArchive."""
    values = _VALUES.get(keyword)
    if values is None:
        shown = ascii(keyword[:_KEYWORD_SHOWN_BYTES].decode(errors="replace"))
        raise CorruptArchive(f"the tar has a PAX record that no host writes: {shown}")
    if not values.fullmatch(value):
        raise _damaged_pax()
    if limits := _RANGES.get(keyword):
        least, most = limits
        if not least <= parse_seconds(value) <= most:
            raise _damaged_pax()


def parse_seconds(decimal: bytes) -> int:
    """Return the whole seconds of a PAX time, which may be negative and have a fraction."""
    whole, _, _ = decimal.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    return sign * parse_decimal(whole.removeprefix(b"-"))


def parse_decimal(digits: bytes) -> int:
    """Return the value of a PAX number of up to 19 digits, more than any size has."""
    if not digits.isdigit() or len(digits) > 19:  # noqa: PLR2004 - see above
        raise _damaged_pax()
    return int(digits)


def _damaged_pax() -> CorruptArchive:
    return CorruptArchive("a PAX header in the tar is damaged")
