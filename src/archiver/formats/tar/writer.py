"""Writes reproducible tars: ustar, with PAX records where a ustar header is too small.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html. Members have no owner.
The tar of a tree that Mercurial packed has the same bytes as Mercurial's.
"""

from collections.abc import Iterator
from functools import lru_cache

from archiver.formats.member import Member, MemberKind, OutputBuffer
from archiver.formats.tar.header import BLOCK, byte_sum

RECORD = 20 * BLOCK
"""Tars are padded to whole tape records."""

_KINDS = {MemberKind.FILE: b"0", MemberKind.LINK: b"2", MemberKind.FOLDER: b"5"}
_PAX = b"x"
_PAX_NAME = b"././@PaxHeader"

_TEXT_BYTES = 100
_REST_BYTES = BLOCK - 156
"""From the kind to the end of a header."""

_SIZE_LIMIT = 8**11
_TIME_LIMIT = 8**11


class TarWriter:
    """Implements ``MemberWriter``."""

    def __init__(self) -> None:
        self._output = OutputBuffer()
        self._padding = 0
        self.take_output = self._output.take

    def start_member(self, member: Member) -> None:
        path = _path(member)
        form = _header_form(_KINDS[member.kind], member.mode, member.mtime, member.link)
        header = _header(path, member.size_bytes, form)
        if not _fits_ustar(path, member) and (records := _pax_records(path, member)):
            data = b"".join(_pax_record(keyword, value) for keyword, value in records.items())
            extended = _header(_PAX_NAME, len(data), _header_form(_PAX))
            header = extended + data + bytes(-len(data) % BLOCK) + header
        self._output.append(bytes(self._padding) + header)
        self._padding = -member.size_bytes % BLOCK

    def write(self, data: bytes) -> None:
        self._output.append(data)

    def finish(self) -> Iterator[bytes]:
        self._output.append(bytes(self._padding + 2 * BLOCK))
        self._output.append(bytes(-self._output.total_bytes % RECORD))
        yield self._output.take_all()


def _path(member: Member) -> bytes:
    return member.name + b"/" if member.kind is MemberKind.FOLDER else member.name


def _shorten(text: bytes) -> bytes:
    """Return a header's field for a *text* whose full value is in a PAX record."""
    if not text.isascii():
        text = text.decode(errors="surrogateescape").encode("ascii", "replace")
    return text[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")


def _fits_ustar(path: bytes, member: Member) -> bool:
    """Return whether a file or folder certainly needs no records. A shortcut: most need none."""
    return (
        len(path) <= _TEXT_BYTES
        and path.isascii()
        and not member.link
        and member.size_bytes < _SIZE_LIMIT
        and 0 <= member.mtime < _TIME_LIMIT
    )


def _pax_records(path: bytes, member: Member) -> dict[bytes, bytes]:
    """Return the values that do not fit into a ustar header."""
    records = {}
    if _needs_record(path):
        records[b"path"] = path
    if _needs_record(member.link):
        records[b"linkpath"] = member.link
    if any(not _is_utf8(text) for text in records.values()):
        records = {b"hdrcharset": b"BINARY", **records}
    if member.size_bytes >= _SIZE_LIMIT:
        records[b"size"] = b"%d" % member.size_bytes
    if not 0 <= member.mtime < _TIME_LIMIT:
        records[b"mtime"] = b"%d" % member.mtime
    return records


def _needs_record(text: bytes) -> bool:
    return len(text) > _TEXT_BYTES or not text.isascii()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    """Return a PAX record, which begins with its own length."""
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) > length:
        length += 1
    return b"%d%s" % (length, rest)


@lru_cache(maxsize=256)
def _header_form(
    kind: bytes, mode: int = 0, mtime: int = 0, link: bytes = b""
) -> tuple[bytes, bytes, bytes, int]:
    """Return the parts of a header between name, size and checksum, and their sum.

    Cached, since the members of a tree differ in little else.
    """
    owner = b"%07o\x000000000\x000000000\x00" % mode
    time = b"%011o\x00" % (mtime if 0 <= mtime < _TIME_LIMIT else 0)
    rest = (b"%s%sustar\x0000" % (kind, _shorten(link))).ljust(_REST_BYTES, b"\0")
    return owner, time, rest, sum(owner) + sum(time) + sum(rest) + 8 * ord(" ")


def _header(name: bytes, size_bytes: int, form: tuple[bytes, bytes, bytes, int]) -> bytes:
    """Return a header block. Values that do not fit are cut or zero; a PAX record has them."""
    owner, time, rest, checksum = form
    name = _shorten(name)
    size = b"%011o\x00" % (size_bytes if size_bytes < _SIZE_LIMIT else 0)
    checksum += byte_sum(name) + byte_sum(size)
    return b"%s%s%s%s%06o\x00 %s" % (name, owner, size, time, checksum, rest)
