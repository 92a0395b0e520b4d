"""Writes tars that are the same wherever they are written: ustar, and PAX where that is too small.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html. Members belong to
nobody; what Mercurial packs comes out as Mercurial packs it.
"""

from collections.abc import Iterator

from archiver.formats.member import Kind, Member, Output
from archiver.formats.tar_header import BLOCK

RECORD = 20 * BLOCK
"""What a tar is filled up to, since tapes."""

_KINDS = {Kind.FILE: b"0", Kind.HARD_LINK: b"1", Kind.LINK: b"2", Kind.FOLDER: b"5"}
_PAX = b"x"
_PAX_NAME = b"././@PaxHeader"

_TEXT_BYTES = 100
_SIZE_LIMIT = 8**11
_TIME_LIMIT = 8**11


class TarWriter:
    """Implements ``Writer``."""

    def __init__(self) -> None:
        self._output = Output()
        self._padding = 0
        self.take = self._output.take

    def begin(self, member: Member) -> None:
        header = _header(
            _path(member),
            kind=_KINDS[member.kind],
            mode=member.mode,
            mtime=member.mtime,
            link=member.link,
            size_bytes=member.size_bytes,
        )
        if records := _records(member):
            data = b"".join(_record(keyword, value) for keyword, value in records.items())
            extended = _header(_PAX_NAME, kind=_PAX, size_bytes=len(data))
            header = extended + data + bytes(-len(data) % BLOCK) + header
        self._output.put(bytes(self._padding) + header)
        self._padding = -member.size_bytes % BLOCK

    def write(self, data: bytes) -> None:
        self._output.put(data)

    def finish(self) -> Iterator[bytes]:
        self._output.put(bytes(self._padding + 2 * BLOCK))
        self._output.put(bytes(-self._output.position % RECORD))
        yield self._output.rest()


def _path(member: Member) -> bytes:
    return member.name + b"/" if member.kind is Kind.FOLDER else member.name


def _shortened(text: bytes) -> bytes:
    """Return what a header shows of a *text* that a PAX record has whole."""
    if not text.isascii():
        text = text.decode(errors="surrogateescape").encode("ascii", "replace")
    return text[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")


def _records(member: Member) -> dict[bytes, bytes]:
    """Return what a ustar header has no room for."""
    records = {}
    if _is_too_much(path := _path(member)):
        records[b"path"] = path
    if _is_too_much(member.link):
        records[b"linkpath"] = member.link
    if any(not _is_utf8(text) for text in records.values()):
        records = {b"hdrcharset": b"BINARY", **records}
    if member.size_bytes >= _SIZE_LIMIT:
        records[b"size"] = b"%d" % member.size_bytes
    if not 0 <= member.mtime < _TIME_LIMIT:
        records[b"mtime"] = b"%d" % member.mtime
    return records


def _is_too_much(text: bytes) -> bool:
    return len(text) > _TEXT_BYTES or not text.isascii()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(keyword: bytes, value: bytes) -> bytes:
    """Return a PAX record, which begins with its own length."""
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) > length:
        length += 1
    return b"%d%s" % (length, rest)


def _header(
    name: bytes,
    *,
    kind: bytes,
    size_bytes: int,
    mode: int = 0,
    mtime: int = 0,
    link: bytes = b"",
) -> bytes:
    """Return a block; what it has no room for is cut, or zero, and a PAX record has it."""
    before = b"%s%07o\x000000000\x000000000\x00%011o\x00%011o\x00" % (
        _shortened(name),
        mode,
        size_bytes if size_bytes < _SIZE_LIMIT else 0,
        mtime if 0 <= mtime < _TIME_LIMIT else 0,
    )
    after = b"%s%sustar\x0000" % (kind, _shortened(link))
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return (b"%s%06o\x00 %s" % (before, checksum, after)).ljust(BLOCK, b"\0")
