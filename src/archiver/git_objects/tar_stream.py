"""Puts the record of a commit into the tar that ``git archive`` writes.

Git writes a global PAX header with the node, then the root directory, the folders above the
requested path, and the files. Format:
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from archiver.git_objects.commit_record import CommitRecord
from archiver.git_objects.tar_blocks import (
    BLOCK,
    EXTENDED,
    FOLDER,
    GLOBAL,
    extended_header,
    extension_size,
    kind_of,
    padded,
    pax_record,
    unexpected,
)


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
        start = at = self._end_of_extension(0, GLOBAL)
        for _ in range(self._folders_above):
            at = self._end_of_extension(at, EXTENDED)
            if kind_of(self._block(at)) != FOLDER:
                raise unexpected()
            at += BLOCK
        after = self._end_of_extension(at, EXTENDED)
        head = self.unread[:start] + self._extension(at, after) + self.unread[after:]
        self._done, self.unread = True, b""
        return head

    def _block(self, at: int) -> bytes:
        block = self.unread[at : at + BLOCK]
        if len(block) < BLOCK:
            raise _Incomplete
        return block

    def _end_of_extension(self, at: int, kind: bytes) -> int:
        """Return the index after the extension header at *at*, or *at* if another one is there."""
        block = self._block(at)
        if kind_of(block) != kind:
            if kind == GLOBAL:
                raise unexpected()
            return at
        end = at + BLOCK + padded(extension_size(block))
        self._block(end)  # a member follows
        return end

    def _extension(self, at: int, after: int) -> bytes:
        """Return the extension header of the first member, with the comment."""
        if not self._comment:
            return self.unread[at:after]
        block = self._block(at)
        data = self.unread[at + BLOCK : at + BLOCK + extension_size(block)] if after > at else b""
        return extended_header(block, data + pax_record(b"comment", self._comment))
