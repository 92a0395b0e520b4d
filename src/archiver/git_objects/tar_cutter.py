"""Cuts the tar that ``git archive`` writes at the members that others replace.

Git writes ustar headers, an extended PAX header before a member with a long path, a long target or
a huge size, and a global PAX header at the beginning.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from archiver.errors import CorruptArchive
from archiver.git_objects.tar_blocks import (
    BLOCK,
    EXTENDED,
    FILE,
    FOLDER,
    GLOBAL,
    ZEROS,
    extended_header,
    extension_size,
    kind_of,
    padded,
    pax_record,
    pax_value,
    size_of,
    unexpected,
    with_size,
)

USTAR_MAX_BYTES = 8**11
"""From this size on, a file needs a PAX record of its size."""


class Gap(NamedTuple):
    """The place of the replaced member *name*, a full name without a slash at the end.

    For a folder, that is the place of whole members. For a file, whose header came before, it is
    the place of its content without padding.
    """

    name: bytes


Piece: TypeAlias = bytes | Gap


class _Member(NamedTuple):
    """The headers of a member: the records of its PAX header, and the ustar header."""

    records: bytes
    block: bytes

    @property
    def kind(self) -> bytes:
        return kind_of(self.block)

    @property
    def name(self) -> bytes:
        if self.records and (path := pax_value(self.records, b"path")) is not None:
            return path.rstrip(b"/")
        name, prefix = self.block[:100].rstrip(b"\0"), self.block[345:500].rstrip(b"\0")
        return (prefix + b"/" + name if prefix else name).rstrip(b"/")

    @property
    def size_bytes(self) -> int:
        if self.kind != FILE:
            return 0
        if self.records and (size := pax_value(self.records, b"size")) is not None:
            return int(size)
        return size_of(self.block)


class TarCutter:
    """Returns a tar in pieces, with gaps for what is replaced, and without the end of the tar.

    *folders* are the names of folders to replace, *sizes* has the new size of each file to replace.
    The first member gets a *comment*. The global header is left out, and so are the first *above*
    folders: those above the path to which git's tar is limited. Raises CorruptArchive if git wrote
    something else.
    """

    def __init__(
        self,
        *,
        folders: frozenset[bytes] = frozenset(),
        sizes: Mapping[bytes, int] | None = None,
        comment: bytes = b"",
        above: int = 0,
    ) -> None:
        self._folders = folders
        self._sizes = sizes or {}
        self._comment = comment
        self._above = above
        self._unread = b""
        self._pass_bytes = 0
        self._skip_bytes = 0
        self._pieces: list[Piece] = []
        self._ended = False

    def feed(self, chunk: bytes) -> list[Piece]:
        """Return what can be passed on after the next *chunk*."""
        data = self._unread + chunk if self._unread else chunk
        at = kept_from = 0
        while not self._ended:
            at += self._passed(len(data) - at)
            if self._skip_bytes:
                self._keep(data, kept_from, at)
                at = kept_from = at + self._skipped(len(data) - at)
            after = self._end_of_headers(data, at)
            if not after:
                break
            if not self._ended and not self._is_special(data, at, after):
                at = after
                continue
            self._keep(data, kept_from, at)
            if not self._ended:
                self._replace(data[at:after])
            at = kept_from = after
        self._keep(data, kept_from, at)
        self._unread = b"" if self._ended else data[at:]
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Return if the tar was complete."""
        if not self._ended:
            raise CorruptArchive("git did not write its tar to the end")

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if start < end:
            self._pieces.append(data[start:end])

    def _passed(self, available: int) -> int:
        step = min(self._pass_bytes, available)
        self._pass_bytes -= step
        return step

    def _skipped(self, available: int) -> int:
        step = min(self._skip_bytes, available)
        self._skip_bytes -= step
        return step

    def _end_of_headers(self, data: bytes, at: int) -> int:
        """Return the index after all headers of the member at *at*; 0 if they are incomplete."""
        while len(data) - at >= BLOCK:
            kind = data[at + 156 : at + 157]
            if kind not in {EXTENDED, GLOBAL}:
                self._ended = kind == b"\0" and data[at : at + BLOCK] == ZEROS
                return at + BLOCK
            at += BLOCK + padded(extension_size(data[at : at + BLOCK]))
        return 0

    def _is_special(self, data: bytes, at: int, after: int) -> bool:
        """Return whether the member may not stay as it is. Else, its content is passed on."""
        if self._comment or self._above or data[at + 156 : at + 157] == GLOBAL:
            return True
        member = _member(data[at:after])
        kind = member.kind
        if kind == FILE:
            if self._sizes and member.name in self._sizes:
                return True
            self._pass_bytes = padded(member.size_bytes)
            return False
        return kind == FOLDER and bool(self._folders) and member.name in self._folders

    def _replace(self, headers: bytes) -> None:
        """Add what stands in place of a special member, up to its content."""
        if kind_of(headers) == GLOBAL:
            length = BLOCK + padded(extension_size(headers[:BLOCK]))
            headers = headers[length:]
        member = _member(headers)
        if self._above:
            if member.kind != FOLDER:
                raise unexpected()
            self._above -= 1
        elif member.kind == FOLDER and member.name in self._folders:
            self._pieces.append(Gap(member.name))
        elif member.kind == FILE and (size := self._sizes.get(member.name)) is not None:
            self._pieces += (self._headers(member, size), Gap(member.name))
            if padding := bytes(-size % BLOCK):
                self._pieces.append(padding)
            self._skip_bytes = padded(member.size_bytes)
        else:
            self._pieces.append(self._headers(member, None))
            self._pass_bytes = padded(member.size_bytes)

    def _headers(self, member: _Member, size: int | None) -> bytes:
        """Return the headers of a member with the comment, and with the new *size* of a file."""
        records, block = member
        if self._comment:
            records += pax_record(b"comment", self._comment)
            self._comment = b""
        if size is not None:
            if size >= USTAR_MAX_BYTES:
                records += pax_record(b"size", b"%d" % size)
            block = with_size(block, size if size < USTAR_MAX_BYTES else 0)
        return (extended_header(block, records) if records else b"") + block


def _member(headers: bytes) -> _Member:
    if len(headers) == BLOCK:
        return _Member(b"", headers)
    if kind_of(headers) != EXTENDED:
        raise unexpected()
    end = BLOCK + extension_size(headers[:BLOCK])
    return _Member(headers[BLOCK:end], headers[-BLOCK:])
