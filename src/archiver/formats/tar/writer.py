"""Writes tars that are the same wherever they are written: ustar, and PAX where that is too small.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html. Members belong to
nobody; what Mercurial packs comes out as Mercurial packs it.
"""

from collections.abc import Iterator
from functools import lru_cache

from archiver.formats.member import Kind, Member, Output
from archiver.formats.tar.header import BLOCK, added_up

RECORD = 20 * BLOCK
"""What a tar is filled up to, since tapes."""

_KINDS = {Kind.FILE: b"0", Kind.LINK: b"2", Kind.FOLDER: b"5"}
_PAX = b"x"
_PAX_NAME = b"././@PaxHeader"

_TEXT_BYTES = 100
_REST_BYTES = BLOCK - 156
"""From the kind to the end."""

_SIZE_LIMIT = 8**11
_TIME_LIMIT = 8**11


class TarWriter:
    """Implements ``Writer``."""

    def __init__(self) -> None:
        self._output = Output()
        self._padding = 0
        self.take = self._output.take

    def begin(self, member: Member) -> None:
        path = _path(member)
        form = _form(_KINDS[member.kind], member.mode, member.mtime, member.link)
        header = _header(path, member.size_bytes, form)
        if not _is_plain(path, member) and (records := _records(path, member)):
            data = b"".join(_record(keyword, value) for keyword, value in records.items())
            extended = _header(_PAX_NAME, len(data), _form(_PAX))
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


def _is_plain(path: bytes, member: Member) -> bool:
    """Tell whether it is a file, or a folder, that has no records: quickly, since most are."""
    return (
        len(path) <= _TEXT_BYTES
        and path.isascii()
        and not member.link
        and member.size_bytes < _SIZE_LIMIT
        and 0 <= member.mtime < _TIME_LIMIT
    )


def _records(path: bytes, member: Member) -> dict[bytes, bytes]:
    """Return what a ustar header has no room for."""
    records = {}
    if _is_too_much(path):
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


@lru_cache(maxsize=256)
def _form(
    kind: bytes, mode: int = 0, mtime: int = 0, link: bytes = b""
) -> tuple[bytes, bytes, bytes, int]:
    """Return a header but for name, size and checksum, as what stands between them; and its sum.

    Kept, since the members of a tree differ in little else.
    """
    owner = b"%07o\x000000000\x000000000\x00" % mode
    time = b"%011o\x00" % (mtime if 0 <= mtime < _TIME_LIMIT else 0)
    rest = (b"%s%sustar\x0000" % (kind, _shortened(link))).ljust(_REST_BYTES, b"\0")
    return owner, time, rest, sum(owner) + sum(time) + sum(rest) + 8 * ord(" ")


def _header(name: bytes, size_bytes: int, form: tuple[bytes, bytes, bytes, int]) -> bytes:
    """Return a block; what it has no room for is cut, or zero, and a PAX record has it."""
    owner, time, rest, checksum = form
    name = _shortened(name)
    size = b"%011o\x00" % (size_bytes if size_bytes < _SIZE_LIMIT else 0)
    checksum += added_up(name) + added_up(size)
    return b"%s%s%s%s%06o\x00 %s" % (name, owner, size, time, checksum, rest)
