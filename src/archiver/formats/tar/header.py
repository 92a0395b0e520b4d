"""The blocks before a tar's members, and what they say: ustar, PAX and GNU.

Formats: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html and
https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import adler32

import msgspec

from archiver.errors import CorruptArchive, NotConvertible
from archiver.formats.archive_tree import SPECIAL_BITS, shown
from archiver.formats.member import Kind, Member

BLOCK = 512
MODE_BITS = 0o7777

FILE, SYMBOLIC_LINK, FOLDER = b"025"
UNSAFE = {
    **dict.fromkeys(b"346", "a device"),
    ord("1"): "a hard link",
}
"""Members that no host sends, by kind. Of a hard link, readers do different things: some copy the
file that it names, which may come later, or never."""

EXTENSIONS = frozenset(b"xgLK")
"""Not members, but headers of their own, that say more of the next one or of all."""

_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"xgLK"

_ANNOUNCEMENTS = frozenset(
    first + rest for first in (b"", b"g") for rest in (b"", b"x", b"L", b"K", b"LK", b"KL")
)
"""The kinds of headers that writers put before one member. Readers do not agree on any others: of
two PAX headers, GNU tar and bsdtar obey only the last one, and Python obeys both."""

_HEEDED = frozenset({b"path", b"linkpath", b"size", b"mtime"})
"""The PAX keywords that matter here."""

_OF_ONE_MEMBER = frozenset({b"path", b"linkpath", b"size", b"hdrcharset"})
"""What no two readers understand alike when a header says it of all members."""

_TEXT = re.compile(rb"[^\0]*")
_PAX_NUMBER = re.compile(rb"[0-9]{1,19}")
_PAX_TIME = re.compile(rb"-?[0-9]{1,19}(?:\.[0-9]{0,30})?")
_VALUES = {
    **dict.fromkeys((b"path", b"linkpath", b"uname", b"gname", b"comment"), _TEXT),
    **dict.fromkeys((b"size", b"uid", b"gid"), _PAX_NUMBER),
    **dict.fromkeys((b"mtime", b"atime", b"ctime"), _PAX_TIME),
    b"hdrcharset": re.compile(rb"BINARY|ISO-IR 10646 2000 UTF-8"),
}
"""The PAX keywords that hosts write, and what their values may be.

Vendors have others, which some readers obey and some do not: for another size (``SCHILY.realsize``,
``GNU.sparse.*``), name, owner or rights (ACLs, capabilities, ``LIBARCHIVE.*``).
"""

_PAX_RANGES = {
    **dict.fromkeys((b"uid", b"gid"), (0, (1 << 32) - 1)),
    b"size": (0, (1 << 63) - 1),
    **dict.fromkeys((b"mtime", b"atime", b"ctime"), (-1 << 62, 1 << 62)),
}
"""What fits into the types that readers have. Python reads a PAX time as a float, which rounds."""

_KEYWORD_SHOWN_BYTES = 40

_WITHOUT_DATA = frozenset(b"123456")

KINDS = {
    **dict.fromkeys(b"0\x00", Kind.FILE),
    **dict(zip(b"25", (Kind.LINK, Kind.FOLDER), strict=True)),
}
"""What hosts send. Kinds that are not UNSAFE either are known to some readers only, which do not
agree on what they are."""

_NAME = slice(0, 100)
_MODE = slice(100, 108)
_SIZE = slice(124, 136)
_MTIME = slice(136, 148)
_RANGES = (
    *((slice(at, at + 8), 0, (1 << 32) - 1) for at in (100, 108, 116, 329, 337)),
    (_SIZE, 0, (1 << 63) - 1),
    (_MTIME, -1 << 63, (1 << 63) - 1),
)
"""What fits into the types that readers have: for mode, owner, group, size and time, and for the
two numbers of a device, which some read whatever the member is."""

_OCTAL = re.compile(rb" *([0-7]+)[ \0]*|\0+")
"""Of what follows a first blank or NUL, some think it is the number, and some that it is none."""

_USUAL_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6}\0 )")
"""What nearly everybody writes into those fields, and into that of the checksum."""

_CHECKSUM = slice(148, 156)
_KIND = 156
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_DEVICE = slice(329, 345)
_NO_DEVICE = frozenset({bytes(16), b"0000000\0" * 2})
_PREFIX = slice(345, 500)
_UNUSED = slice(500, BLOCK)
_BEYOND_USTAR = slice(345, BLOCK)
"""Where GNU has times and maps of sparse files, which others take for a name."""

_MODE_AT, _LINK_AT = _MODE.start, _LINK.start


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The block before a member's data. ``kind`` is its type flag, ``link`` what it points to.

    ``mtime`` is what a PAX record says of it.
    """

    name: bytes
    kind: int
    link: bytes
    size_bytes: int
    block: bytes
    mtime: bytes | None = None

    def overruled(self, records: Mapping[bytes, bytes]) -> "Header":
        """Return the header as PAX *records* have it, if there are any."""
        if not records:
            return self
        return msgspec.structs.replace(
            self,
            name=records.get(b"path", self.name),
            link=records.get(b"linkpath", self.link),
            size_bytes=_decimal(records[b"size"]) if b"size" in records else self.size_bytes,
            mtime=records.get(b"mtime"),
        )

    @property
    def is_file_named_as_folder(self) -> bool:
        """Whether only some readers take it for a folder.

        Before ustar, a folder was of the kind NUL and had a slash at the end of its name. Python
        looks at the name in the block, whatever name an extension gives. The block of a file with
        a longer name may well end with a slash.
        """
        named = self.name.endswith(b"/")
        if self.kind == 0:
            return named != self.block[_NAME].partition(b"\0")[0].endswith(b"/")
        return named and self.kind == FILE

    @property
    def has_special_bits(self) -> bool:
        """Whether the set-uid, set-gid or sticky bit is set."""
        return _has_special_bits(self.block[_MODE])

    @property
    def data_bytes(self) -> int:
        """How much follows the header, without the padding."""
        return 0 if self.kind in _WITHOUT_DATA else self.size_bytes

    @property
    def unread_bytes(self) -> int:
        """How much follows the header, with the padding."""
        data_bytes = 0 if self.kind in _WITHOUT_DATA else self.size_bytes
        return data_bytes + -data_bytes % BLOCK

    def member(self) -> Member:
        """Return the member, as other formats may have it.

        Raises:
            NotConvertible: No other format has the like.
        """
        kind = KINDS.get(self.kind)
        mode = _number(self.block[_MODE])
        mtime = _time(self.block[_MTIME]) if self.mtime is None else _seconds(self.mtime)
        if kind is None or mode is None or mtime is None:
            raise NotConvertible(f"the member {shown(self.name)} is of a kind that tar alone has")
        if kind is Kind.FILE and self.name.endswith(b"/"):  # as it was before ustar
            kind = Kind.FOLDER
        return Member(
            name=self.name.rstrip(b"/"),
            kind=kind,
            mode=mode & MODE_BITS,
            mtime=mtime,
            link=self.link if kind is Kind.LINK else b"",
            size_bytes=self.data_bytes if kind is Kind.FILE else 0,
        )


@dataclass(slots=True, kw_only=True)
class Extensions:
    """What headers of their own say about the next member, or about all that follow.

    ``announced`` holds the kinds of the headers since the last member.
    """

    next: dict[bytes, bytes] = field(default_factory=dict)
    all: dict[bytes, bytes] = field(default_factory=dict)
    announced: bytes = b""

    def announce(self, kind: int) -> None:
        """Note that a header of this *kind* comes next.

        Raises:
            CorruptArchive: No writer puts it behind the headers before it.
        """
        self.announced += bytes((kind,))
        if self.announced not in _ANNOUNCEMENTS:
            raise CorruptArchive("a member of the tar has headers that no host writes together")

    def learn(self, kind: int, data: bytes) -> None:
        """Keep what *data* says that matters here.

        Raises:
            CorruptArchive: It makes no sense.
        """
        if kind == _LONG_NAME:
            self.next[b"path"] = data.partition(b"\0")[0]
        elif kind == _LONG_LINK:
            self.next[b"linkpath"] = data.partition(b"\0")[0]
        elif kind == _PAX:
            self.next.update(_heeded(_parse_pax(data)))
        elif kind == _PAX_GLOBAL:
            records = _parse_pax(data)
            if not _OF_ONE_MEMBER.isdisjoint(records):
                raise CorruptArchive("a header in the tar gives all members one name or size")
            self.all.update(_heeded(records))

    def take(self) -> Mapping[bytes, bytes]:
        """Return what holds for the next member, and forget what holds for it alone."""
        self.announced = b""
        if not self.next:
            return self.all
        records = {**self.all, **self.next}
        self.next = {}
        return records


def parse_header(block: bytes) -> Header | None:
    """Return the header that *block* is, or None if it is none, or is damaged."""
    size_bytes = _usual_size(block) if block[_DEVICE] in _NO_DEVICE else None
    if size_bytes is None:
        size_bytes = _number(block[_SIZE])
        if size_bytes is None or not _checksum_fits(block) or not _numbers_are_numbers(block):
            return None
    unused = block[_UNUSED if block[_MAGIC] == b"ustar\0" else _BEYOND_USTAR]
    if unused.strip(b"\0"):
        return None
    name = block[_NAME].partition(b"\0")[0]
    if prefix := block[_PREFIX].partition(b"\0")[0]:
        if not name:  # Python reads ``prefix``, GNU tar and bsdtar the folder ``prefix/``
            return None
        name = prefix + b"/" + name
    link = block[_LINK].partition(b"\0")[0] if block[_LINK_AT] else b""
    return Header(name=name, kind=block[_KIND], link=link, size_bytes=size_bytes, block=block)


def _usual_size(block: bytes) -> int | None:
    """Return the size, if the numbers are what most write and add up; None if one has to look."""
    numbers = _USUAL_NUMBERS.match(block, _MODE_AT)
    if not numbers:
        return None
    size, checksum = numbers.groups()
    return int(size, 8) if int(checksum[:6], 8) == _unsigned_sum(block, checksum) else None


def _checksum_fits(block: bytes) -> bool:
    """Tell whether the bytes add up, with the sum's own field as blanks; signed ones may, too."""
    own = block[_CHECKSUM]
    stated = _number(own)
    unsigned = _unsigned_sum(block, own)
    if stated == unsigned:
        return True
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return stated == unsigned - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004 - the sign


def _unsigned_sum(block: bytes, own: bytes) -> int:
    """Return the sum of a block that has blanks for its *own* one."""
    return added_up(block[:256]) + added_up(block[256:]) - added_up(own) + len(own) * ord(" ")


def _numbers_are_numbers(block: bytes) -> bool:
    """Tell whether all numbers but the sum can be read. A sum may fit by accident."""
    numbers = ((_time(block[field]), least, most) for field, least, most in _RANGES)
    return all(n is not None and least <= n <= most for n, least, most in numbers)


def added_up(data: bytes) -> int:
    """Return the sum of at most 256 bytes, by way of Adler-32, whose lower half is one more.

    It counts up to 65,520, which is room for so many; and is ten times as fast as ``sum``.
    """
    return (adler32(data) & 0xFFFF) - 1


def _number(octal: bytes) -> int | None:
    """Return the value of a numeric field: octal digits, or GNU's base 256 for large ones."""
    if octal[0] == 0x80:  # noqa: PLR2004 - the mark of base 256; a negative one is 0xFF
        return int.from_bytes(octal[1:], "big")
    digits = _OCTAL.fullmatch(octal)
    return int(digits[1] or b"0", 8) if digits else None


@lru_cache(maxsize=64)
def _has_special_bits(mode: bytes) -> bool:
    return bool((_number(mode) or 0) & SPECIAL_BITS)


def _time(field: bytes) -> int | None:
    """Return the value of a numeric field that may be negative: GNU has such times before 1970."""
    return int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else _number(field)  # noqa: PLR2004


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a PAX header, each ``length keyword=value`` and a newline.

    A keyword may occur once, as writers have it. So a header has a dozen records at most.
    """
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        blank = data.find(b" ", start, start + _LENGTH_MAX_DIGITS + 1)
        end = start + _decimal(data[start:blank])
        equals = data.find(b"=", blank, end)
        if blank < 0 or equals < 0 or end > len(data) or data[end - 1] != _NEWLINE:
            raise _damaged_pax()
        keyword, value = data[blank + 1 : equals], data[equals + 1 : end - 1]
        _check_record(keyword, value)
        if keyword in records:
            raise CorruptArchive("a PAX header in the tar says one thing twice")
        records[keyword] = value
        start = end
    return records


def _heeded(records: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    return {keyword: value for keyword, value in records.items() if keyword in _HEEDED}


def _check_record(keyword: bytes, value: bytes) -> None:
    """Return if hosts write such a record. Raises CorruptArchive."""
    values = _VALUES.get(keyword)
    if values is None:
        told = ascii(keyword[:_KEYWORD_SHOWN_BYTES].decode(errors="replace"))
        raise CorruptArchive(f"the tar has a PAX record of a kind that no host writes: {told}")
    if not values.fullmatch(value):
        raise _damaged_pax()
    if limits := _PAX_RANGES.get(keyword):
        least, most = limits
        if not least <= _seconds(value) <= most:
            raise _damaged_pax()


def _seconds(decimal: bytes) -> int:
    """Return the whole seconds of a PAX time, which may have fractions, and be before 1970."""
    whole, _, _ = decimal.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    return sign * _decimal(whole.removeprefix(b"-"))


def _decimal(digits: bytes) -> int:
    """Return the value of a PAX number; 19 digits are more than any size has."""
    if not digits.isdigit() or len(digits) > 19:  # noqa: PLR2004 - see above
        raise _damaged_pax()
    return int(digits)


_LENGTH_MAX_DIGITS = 19
_NEWLINE = ord("\n")


def _damaged_pax() -> CorruptArchive:
    return CorruptArchive("a PAX header in the tar is damaged")
