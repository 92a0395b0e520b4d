"""Writes reproducible tars: ustar, with PAX records where a ustar header is too small.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html. Members have no owner.
The tar of a tree that Mercurial packed has the same bytes as Mercurial's.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from archiver.formats.member import Comments, Member, MemberKind, OutputBuffer
from archiver.formats.tar.header import BLOCK, byte_sum
from archiver.formats.tar.reader import EXTENSION_MAX_BYTES

RECORD = 20 * BLOCK
"""Tars are padded to whole tape records."""

_KINDS = {MemberKind.FILE: b"0", MemberKind.LINK: b"2", MemberKind.FOLDER: b"5"}
_PAX, _PAX_GLOBAL = b"x", b"g"
_PAX_NAME = b"././@PaxHeader"
_PAX_GLOBAL_NAME = b"pax_global_header"
"""The name that git uses. Readers that do not know PAX extract a file of this name."""

_PAX_GLOBAL_MODE = 0o666

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
        self._comment = b""
        self.take_output = self._output.take

    def set_comments(self, comments: Comments) -> None:
        if comments.archive:
            self._output.append(_global_header(comments.archive))
        self._comment = comments.first_member

    def start_member(self, member: Member) -> None:
        path = _path(member)
        form = _header_form(_KINDS[member.kind], member.mode, member.mtime, member.link)
        header = _header(path, member.size_bytes, form)
        if self._comment or not _fits_ustar(path, member):
            header = extended_header(_pax_records(path, member), self._comment) + header
            self._comment = b""
        self._output.append(bytes(self._padding) + header)
        self._padding = -member.size_bytes % BLOCK

    def write(self, data: bytes) -> None:
        self._output.append(data)

    def finish(self) -> Iterator[bytes]:
        self._output.append(bytes(self._padding + 2 * BLOCK))
        self._output.append(bytes(-self._output.total_bytes % RECORD))
        yield self._output.take_all()


def extended_header(records: Mapping[bytes, bytes], comment: bytes = b"") -> bytes:
    """Return a PAX header with *records* for the next member, or nothing without records.

    A *comment* that would make it longer than readers accept is left out.
    """
    data = _join(records)
    if comment and len(data) + len(line := _pax_record(b"comment", comment)) <= EXTENSION_MAX_BYTES:
        data += line
    return _padded(_header(_PAX_NAME, len(data), _header_form(_PAX)) + data) if data else b""


def _global_header(comment: bytes) -> bytes:
    data = _pax_record(b"comment", comment)
    form = _header_form(_PAX_GLOBAL, _PAX_GLOBAL_MODE)
    return _padded(_header(_PAX_GLOBAL_NAME, len(data), form) + data)


def _padded(header: bytes) -> bytes:
    return header + bytes(-len(header) % BLOCK)


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


def _join(records: Mapping[bytes, bytes]) -> bytes:
    return b"".join(_pax_record(keyword, value) for keyword, value in records.items())


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
