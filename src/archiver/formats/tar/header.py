"""The header blocks of a tar's members: ustar, PAX and GNU. See ``extensions`` for the formats."""

import re
from collections.abc import Mapping
from functools import lru_cache
from zlib import adler32

import msgspec

from archiver.errors import NotConvertible
from archiver.formats.archive_tree import SPECIAL_BITS, shown
from archiver.formats.member import Member, MemberKind
from archiver.formats.tar.extensions import parse_decimal, parse_seconds

BLOCK = 512
MODE_BITS = 0o7777
OWNER_EXECUTES = 0o100
"""The bit of a mode that git tracks."""

FILE, SYMBOLIC_LINK, FOLDER = b"025"
UNSAFE = {
    **dict.fromkeys(b"346", "a device"),
    ord("1"): "a hard link",
}
"""Kinds of members that no host sends. Readers disagree on hard links: some copy the file that a
link names, which may come later or never."""

_WITHOUT_DATA = frozenset(b"123456")

KINDS = {
    **dict.fromkeys(b"0\x00", MemberKind.FILE),
    **dict(zip(b"25", (MemberKind.LINK, MemberKind.FOLDER), strict=True)),
}
"""Kinds that hosts send. Kinds that are neither here nor UNSAFE are known to some readers only, and
those disagree on their meaning."""

_NAME = slice(0, 100)
_MODE = slice(100, 108)
_SIZE = slice(124, 136)
_MTIME = slice(136, 148)
_RANGES = (
    *((slice(at, at + 8), 0, (1 << 32) - 1) for at in (100, 108, 116, 329, 337)),
    (_SIZE, 0, (1 << 63) - 1),
    (_MTIME, -1 << 63, (1 << 63) - 1),
)
"""The ranges of the types that readers use: for mode, owner, group, size and time, and for the two
numbers of a device, which some readers parse for every kind of member."""

_OCTAL = re.compile(rb" *([0-7]+)[ \0]*|\0+")
"""Readers disagree on digits after the first blank or NUL, so they are not allowed."""

_USUAL_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6}\0 )")
"""What most writers put into those fields and into that of the checksum."""

_CHECKSUM = slice(148, 156)
_KIND = 156
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_DEVICE = slice(329, 345)
_NO_DEVICE = frozenset({bytes(16), b"0000000\0" * 2})
_PREFIX = slice(345, 500)
_UNUSED = slice(500, BLOCK)
_BEYOND_USTAR = slice(345, BLOCK)
"""Where GNU stores times and maps of sparse files, which other readers take for a name."""

_MODE_AT, _LINK_AT = _MODE.start, _LINK.start


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The block before a member's data. ``kind`` is its type flag, ``link`` its target.

    ``mtime`` is the value of a PAX record, if there is one.
    """

    name: bytes
    kind: int
    link: bytes
    size_bytes: int
    block: bytes
    mtime: bytes | None = None

    def extended(self, records: Mapping[bytes, bytes]) -> "Header":
        """Return the header with the values of the PAX *records*."""
        if not records:
            return self
        return msgspec.structs.replace(
            self,
            name=records.get(b"path", self.name),
            link=records.get(b"linkpath", self.link),
            size_bytes=parse_decimal(records[b"size"]) if b"size" in records else self.size_bytes,
            mtime=records.get(b"mtime"),
        )

    @property
    def is_file_named_as_folder(self) -> bool:
        """Whether only some readers treat the member as a folder.

        Before ustar, a folder had the kind NUL and a name with a trailing slash. Python checks
        the name in the block, even if an extension overrides it. The block of a file with a longer
        name may happen to end with a slash.
        """
        named = self.name.endswith(b"/")
        if self.kind == 0:
            return named != self.block[_NAME].partition(b"\0")[0].endswith(b"/")
        return named and self.kind == FILE

    @property
    def is_folder(self) -> bool:
        return self.kind == FOLDER or self.name.endswith(b"/")

    @property
    def has_special_bits(self) -> bool:
        return _has_special_bits(self.block[_MODE])

    @property
    def is_executable(self) -> bool:
        """Whether the owner may execute the file."""
        return _is_executable(self.block[_MODE])

    @property
    def data_bytes(self) -> int:
        """Number of bytes after the header, without padding."""
        return 0 if self.kind in _WITHOUT_DATA else self.size_bytes

    @property
    def unread_bytes(self) -> int:
        """Number of bytes after the header, with padding."""
        return (size := self.data_bytes) + -size % BLOCK

    def member(self) -> Member:
        """Return the member. Raises NotConvertible if other formats cannot represent it."""
        kind = KINDS.get(self.kind)
        mode = _parse_number(self.block[_MODE])
        mtime = _parse_time(self.block[_MTIME]) if self.mtime is None else parse_seconds(self.mtime)
        if kind is None or mode is None or mtime is None:
            raise NotConvertible(f"the member {shown(self.name)} is of a kind that only tar has")
        if kind is MemberKind.FILE and self.name.endswith(b"/"):  # a folder before ustar
            kind = MemberKind.FOLDER
        return Member(
            name=self.name.rstrip(b"/"),
            kind=kind,
            mode=mode & MODE_BITS,
            mtime=mtime,
            link=self.link if kind is MemberKind.LINK else b"",
            size_bytes=self.data_bytes if kind is MemberKind.FILE else 0,
        )


def parse_header(block: bytes) -> Header | None:
    """Return the header in *block*, or None if it is damaged or not a header."""
    size_bytes = _usual_size(block) if block[_DEVICE] in _NO_DEVICE else None
    if size_bytes is None:
        size_bytes = _parse_number(block[_SIZE])
        if size_bytes is None or not _is_checksum_valid(block) or not _are_numbers_valid(block):
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
    numbers = _USUAL_NUMBERS.match(block, _MODE_AT)
    if not numbers:
        return None
    size, checksum = numbers.groups()
    return int(size, 8) if int(checksum[:6], 8) == _unsigned_sum(block, checksum) else None


def _is_checksum_valid(block: bytes) -> bool:
    """Return whether the checksum matches, as the sum of unsigned or of signed bytes."""
    own = block[_CHECKSUM]
    stated = _parse_number(own)
    unsigned = _unsigned_sum(block, own)
    if stated == unsigned:
        return True
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return stated == unsigned - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004 - the sign


def _unsigned_sum(block: bytes, own: bytes) -> int:
    """Return the sum of a block with blanks instead of its *own* checksum."""
    return byte_sum(block[:256]) + byte_sum(block[256:]) - byte_sum(own) + len(own) * ord(" ")


def _are_numbers_valid(block: bytes) -> bool:
    """Return whether all numbers can be parsed. A checksum may match by accident."""
    numbers = ((_parse_time(block[field]), least, most) for field, least, most in _RANGES)
    return all(n is not None and least <= n <= most for n, least, most in numbers)


def byte_sum(data: bytes) -> int:
    """Return the sum of at most 256 bytes. Ten times faster than ``sum``.

    The lower half of Adler-32 is the sum plus one, modulo 65,521, which 256 bytes cannot exceed.
    """
    return (adler32(data) & 0xFFFF) - 1


def _parse_number(octal: bytes) -> int | None:
    """Return the value of a numeric field: octal, or GNU's base 256 for large numbers."""
    if octal[0] == 0x80:  # noqa: PLR2004 - marks base 256; 0xFF marks a negative number
        return int.from_bytes(octal[1:], "big")
    digits = _OCTAL.fullmatch(octal)
    return int(digits[1] or b"0", 8) if digits else None


@lru_cache(maxsize=64)
def _has_special_bits(mode: bytes) -> bool:
    return bool((_parse_number(mode) or 0) & SPECIAL_BITS)


@lru_cache(maxsize=64)
def _is_executable(mode: bytes) -> bool:
    return bool((_parse_number(mode) or 0) & OWNER_EXECUTES)


def _parse_time(field: bytes) -> int | None:
    """Return the value of a numeric field, which is negative in GNU's times before 1970."""
    if field[0] == 0xFF:  # noqa: PLR2004 - see ``_parse_number``
        return int.from_bytes(field, "big", signed=True)
    return _parse_number(field)
