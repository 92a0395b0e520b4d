"""Puts the record of a commit into the tar that ``git archive`` writes.

Git writes a global PAX header with the node, then the root directory, the folders above the
requested path, and the files. Format:
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from archiver.errors import CorruptArchive
from archiver.git_objects.commit_record import CommitRecord

_BLOCK = 512
_EXTENSION_MAX_BYTES = 16 << 10
"""More than the headers with a path of git's maximum length."""

_SIZE = slice(124, 136)
_KIND = slice(156, 157)
_GLOBAL, _EXTENDED, _FOLDER = b"g", b"x", b"5"


async def inject_commit_record(
    chunks: AsyncGenerator[bytes, None], record: CommitRecord, *, subdir: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the tar in *chunks*, with *record* as the comment of its first member.

    Leaves out the folders above *subdir*, to which git's path was limited, and a record that is
    too long. Raises CorruptArchive if git wrote something else.
    """
    head = _Head(record.comment(), subdir)
    async with aclosing(chunks):
        async for chunk in chunks:
            if piece := head.pass_on(chunk):
                yield piece
    if head.unread:  # the tar is truncated
        yield head.unread


def insert_comment(chunks: Iterable[bytes], comment: bytes, *, subdir: str) -> Iterator[bytes]:
    """Yield what ``inject_commit_record`` does for the record with this *comment*."""
    head = _Head(comment, subdir)
    for chunk in chunks:
        if piece := head.pass_on(chunk):
            yield piece
    if head.unread:
        yield head.unread


class _Incomplete(Exception):
    """The header has not arrived yet."""


class _Head:
    """Holds the beginning of a tar until its first member, and passes on the rest."""

    def __init__(self, comment: bytes, subdir: str) -> None:
        self._comment = comment
        self._folders_above = subdir.count("/") + 1 if subdir else 0
        self._done = False
        self.unread = b""

    def pass_on(self, chunk: bytes) -> bytes:
        """Return what can be passed on after the next *chunk*; nothing if that is unknown yet."""
        if self._done:
            return chunk
        self.unread += chunk
        try:
            return self._rewrite()
        except _Incomplete:
            return b""

    def _rewrite(self) -> bytes:
        """Return the beginning with the record. Raises _Incomplete."""
        start = at = self._end_of_extension(0, _GLOBAL)
        for _ in range(self._folders_above):
            at = self._end_of_extension(at, _EXTENDED)
            if self._block(at)[_KIND] != _FOLDER:
                raise _unexpected()
            at += _BLOCK
        after = self._end_of_extension(at, _EXTENDED)
        head = self.unread[:start] + self._extension(at, after) + self.unread[after:]
        self._done, self.unread = True, b""
        return head

    def _block(self, at: int) -> bytes:
        block = self.unread[at : at + _BLOCK]
        if len(block) < _BLOCK:
            raise _Incomplete
        return block

    def _end_of_extension(self, at: int, kind: bytes) -> int:
        """Return the index after the extension header at *at*, or *at* if another one is there."""
        block = self._block(at)
        if block[_KIND] != kind:
            if kind == _GLOBAL:
                raise _unexpected()
            return at
        size = _size(block)
        end = at + _BLOCK + size + -size % _BLOCK
        self._block(end)  # a member follows
        return end

    def _extension(self, at: int, after: int) -> bytes:
        """Return the extension header of the first member, with the comment."""
        if not self._comment:
            return self.unread[at:after]
        block = self._block(at)
        data = self.unread[at + _BLOCK : at + _BLOCK + _size(block)] if after > at else b""
        data += _pax_record(b"comment", self._comment)
        return _extended_header(block, len(data)) + data + bytes(-len(data) % _BLOCK)


def _size(block: bytes) -> int:
    try:
        size = int(block[_SIZE].rstrip(b"\0 "), 8)
    except ValueError as exc:
        raise _unexpected() from exc
    if not 0 <= size <= _EXTENSION_MAX_BYTES:
        raise _unexpected()
    return size


def _extended_header(block: bytes, size_bytes: int) -> bytes:
    """Return the header of PAX records, with the owner and the time of git's *block*."""
    name = b"././@PaxHeader".ljust(100, b"\0")
    kind = _EXTENDED + bytes(100)  # no link
    start = name + block[100:124] + b"%011o\0" % size_bytes + block[136:148]
    rest = kind + block[257:345] + bytes(_BLOCK - 345)
    checksum = sum(start) + sum(rest) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + rest


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) > length:
        length += 1
    return b"%d%s" % (length, rest)


def _unexpected() -> CorruptArchive:
    return CorruptArchive("git did not write the tar that was expected")
