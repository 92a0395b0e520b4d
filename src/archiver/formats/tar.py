"""Walks through a tar stream: ustar, with the extensions of POSIX (PAX) and of GNU.

Formats: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html and
https://www.gnu.org/software/tar/manual/html_node/Standard.html. Unlike most readers of tar, it
insists on the two blocks of zeros at the end: they alone tell a whole archive from one that was cut
between two members.
"""

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from zlib import adler32

import msgspec

from archiver.errors import (
    BadArchive,
    CorruptArchive,
    NotAnArchive,
    NotConvertible,
    UnsafeMember,
)
from archiver.formats.incoming import Incoming, Waiting
from archiver.formats.links import Links
from archiver.formats.member import Kind, Member
from archiver.formats.meter import Meter
from archiver.formats.tree import NOTE_MAX_BYTES, Tree, shown

BLOCK = 512
ZEROS = bytes(BLOCK)
PIECE_BYTES = 1 << 20

MODE_BITS = 0o7777

EXTENSION_MAX_BYTES = 1 << 20
"""Of a PAX header or a long name. Real ones have some hundred bytes."""

_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"xgLK"
_FILE, _HARD_LINK, _SYMBOLIC_LINK = b"012"
_DEVICES = frozenset(b"346")
_EXTENSIONS = frozenset(b"xgLK")
_WITHOUT_DATA = frozenset(b"123456")
_REFUSED = frozenset(b"MS")
"""Members that go on in another volume, or have more headers than one: hosts do not send them."""

_KINDS = {
    **dict.fromkeys(b"0\x007", Kind.FILE),
    **dict(zip(b"125", (Kind.HARD_LINK, Kind.LINK, Kind.FOLDER), strict=True)),
}
"""The others are devices and the like, or unknown to everybody."""

_NAME = slice(0, 100)
_MODE = slice(100, 108)
_SIZE = slice(124, 136)
_MTIME = slice(136, 148)
_NUMBERS = (_MODE, slice(108, 116), slice(116, 124), _SIZE, _MTIME)
_USUAL_NUMBERS = re.compile(rb"(?:[0-7]{7}[\0 ]){3}(?:[0-7]{11}[\0 ]){2}")
"""What nearly everybody writes into those fields."""

_CHECKSUM = slice(148, 156)
_KIND = 156
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 500)


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
    def data_bytes(self) -> int:
        """How much follows the header, but for the padding: links only state a size."""
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
        kind = _KINDS.get(self.kind)
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
            link=self.link if kind in {Kind.LINK, Kind.HARD_LINK} else b"",
            size_bytes=self.data_bytes if kind is Kind.FILE else 0,
        )


@dataclass(slots=True, kw_only=True)
class _Extensions:
    """What headers of their own say about the next member, or about all that follow."""

    next: dict[bytes, bytes] = field(default_factory=dict)
    all: dict[bytes, bytes] = field(default_factory=dict)

    def learn(self, kind: int, data: bytes) -> None:
        if kind == _LONG_NAME:
            self.next[b"path"] = data.partition(b"\0")[0]
        elif kind == _LONG_LINK:
            self.next[b"linkpath"] = data.partition(b"\0")[0]
        elif kind == _PAX:
            self.next.update(_parse_pax(data))
        elif kind == _PAX_GLOBAL:
            self.all.update(_parse_pax(data))

    def take(self) -> Mapping[bytes, bytes]:
        """Return what holds for the next member, and forget what holds for it alone."""
        if not self.next:
            return self.all
        records = {**self.all, **self.next}
        self.next = {}
        return records


Take = Callable[[Incoming, Header], Waiting | None]
"""Reads ``Header.data_bytes``, and what fills up the last block; returns how, unless it is done."""


def walk(incoming: Incoming, *, tree: Tree, meter: Meter) -> Waiting:
    """Read a tar to its end, see that its members belong to *tree*, and count them.

    Raises:
        BadArchive: It is cut, damaged, empty, of something else, or goes on after its end.
    """
    links = Links(root=tree.root)
    yield from members(incoming, partial(_inspect, tree=tree, links=links, meter=meter))
    links.close()


def members(incoming: Incoming, take: Take) -> Waiting:
    """Read a tar to its end, and have *take* read each of its members.

    Raises:
        BadArchive: As for ``walk``.
    """
    extensions = _Extensions()
    any_members = False
    while True:
        block = incoming.at_hand(BLOCK) or (yield from incoming.exactly(BLOCK))
        if block == ZEROS:
            break
        header = parse_header(block)
        if not header:
            raise _unreadable(first=incoming.position == BLOCK)
        if header.kind in _EXTENSIONS:
            extensions.learn(header.kind, (yield from _extension(incoming, header)))
        elif header.kind in _REFUSED:
            raise CorruptArchive("the tar has a member of a kind that no host sends")
        else:
            yield from take(incoming, header.overruled(extensions.take())) or ()
            any_members = True
    if not any_members:
        raise NotAnArchive("the tar has no members")
    yield from _end(incoming)


def _unreadable(*, first: bool) -> BadArchive:
    if first:
        return NotAnArchive("what the host compressed is not a tar")
    return CorruptArchive("a header in the tar is damaged")


def _extension(incoming: Incoming, header: Header) -> Generator[None, None, bytes]:
    if header.size_bytes > EXTENSION_MAX_BYTES:
        raise CorruptArchive("a header in the tar is larger than any that makes sense")
    data = yield from incoming.exactly(header.size_bytes)
    yield from incoming.skip(-header.size_bytes % BLOCK)
    return data


def _inspect(
    incoming: Incoming, header: Header, tree: Tree, links: Links, meter: Meter
) -> Waiting | None:
    meter.member()
    tree.check_name(header.name)
    links.check_member(header.name)
    if header.kind != _FILE:
        _check_special(header, tree, links)
    if header.name == tree.note:
        return _inspect_note(incoming, header, tree)
    return (
        None if incoming.skip_at_hand(header.unread_bytes) else incoming.skip(header.unread_bytes)
    )


def _inspect_note(incoming: Incoming, header: Header, tree: Tree) -> Waiting:
    start = min(header.data_bytes, NOTE_MAX_BYTES)
    tree.check_note((yield from incoming.exactly(start)))
    yield from incoming.skip(header.unread_bytes - start)


def _check_special(header: Header, tree: Tree, links: Links) -> None:
    """Hard links name a member from the root on, symbolic ones a place from where they stand."""
    if header.kind == _HARD_LINK:
        tree.check_name(header.link)
        links.check_member(header.link)
    elif header.kind == _SYMBOLIC_LINK:
        links.enter(header.name, links.way(header.name, header.link))
    elif header.kind in _DEVICES:
        raise UnsafeMember(f"the member {shown(header.name)} is a device")


def _end(incoming: Incoming) -> Waiting:
    """Read the second block of zeros, and nothing but zeros after it."""
    if (yield from incoming.exactly(BLOCK)) != ZEROS:
        raise CorruptArchive("the tar goes on after a block of zeros")
    while padding := (yield from incoming.some(PIECE_BYTES)):
        if padding.count(0) != len(padding):
            raise CorruptArchive("something follows the end of the tar")


def parse_header(block: bytes) -> Header | None:
    """Return the header that *block* is, or None if it is none, or is damaged."""
    size_bytes = _number(block[_SIZE])
    if size_bytes is None or not _checksum_fits(block) or not _numbers_are_numbers(block):
        return None
    name = block[_NAME].partition(b"\0")[0]
    if block[_PREFIX.start] and block[_MAGIC] == b"ustar\0":
        prefix = block[_PREFIX].partition(b"\0")[0]
        name = prefix + b"/" + name if name else prefix
    link = block[_LINK].partition(b"\0")[0]
    return Header(name=name, kind=block[_KIND], link=link, size_bytes=size_bytes, block=block)


def _checksum_fits(block: bytes) -> bool:
    """Tell whether the bytes add up, with the sum's own field as blanks; signed ones may, too."""
    own = block[_CHECKSUM]
    stated = _number(own)
    unsigned = _sum(block) - sum(own) + len(own) * ord(" ")
    if stated == unsigned:
        return True
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return stated == unsigned - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004 - the sign


def _numbers_are_numbers(block: bytes) -> bool:
    """Tell whether mode, owner, size and time can be read. A sum may fit by accident."""
    if _USUAL_NUMBERS.match(block, _MODE.start):
        return True
    return all(_time(block[field]) is not None for field in _NUMBERS)


def _sum(block: bytes) -> int:
    """Return the sum of a block's bytes, by way of Adler-32, whose lower half is one more.

    It counts up to 65,520, which is room for 256 bytes; and is ten times as fast as ``sum``.
    """
    low = 0xFFFF
    return (adler32(block[:256]) & low) + (adler32(block[256:]) & low) - 2


def _number(octal: bytes) -> int | None:
    """Return the value of a numeric field: octal digits, or GNU's base 256 for large ones."""
    if octal[0] == 0x80:  # noqa: PLR2004 - the mark of base 256; a negative one is 0xFF
        return int.from_bytes(octal[1:], "big")
    digits = octal.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _time(field: bytes) -> int | None:
    """Return the value of a numeric field that may be negative: GNU has such times before 1970."""
    return int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else _number(field)  # noqa: PLR2004


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a PAX header: ``length keyword=value`` and a newline, each."""
    records = {}
    while data:
        length = _decimal(data.partition(b" ")[0])
        record, data = data[:length], data[length:]
        keyword, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise _damaged_pax()
        records[keyword] = value[:-1]
    return records


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


def _damaged_pax() -> CorruptArchive:
    return CorruptArchive("a PAX header in the tar is damaged")
