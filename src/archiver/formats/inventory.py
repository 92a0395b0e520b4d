"""Stores an archive temporarily, to list its members."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

import msgspec

from archiver.drift import Content
from archiver.formats.member import Comments, Member, MemberKind, OutputBuffer
from archiver.formats.repack import MemberFilter, repack_tar, repack_zip
from archiver.formats.workspace import Spool, Workspace
from archiver.model import Archive
from archiver.runtime.threads import iterate_in_thread, run_in_thread

READ_BYTES = 1 << 20

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Content)


@contextmanager
def open_inventory(
    archive: Archive, *, workspace: Workspace, size_bytes: int = 0
) -> Iterator["SpooledInventory"]:
    """Implements ``ports.InventoryFactory``, given a *workspace*."""
    with workspace.spool(expected_bytes=size_bytes) as spool:
        yield SpooledInventory(archive=archive, spool=spool)


class SpooledInventory:
    """Implements ``ports.ArchiveInventory``."""

    def __init__(self, *, archive: Archive, spool: Spool) -> None:
        self._archive = archive
        self._spool = spool

    async def write(self, chunk: bytes) -> None:
        await run_in_thread(self._spool.write, chunk)

    async def iter_members(self) -> AsyncGenerator[Sequence[Content], None]:
        async with aclosing(iterate_in_thread(self._lines())) as pieces:
            async for lines in pieces:
                yield _DECODER.decode_lines(lines)

    def _lines(self) -> Iterator[bytes]:
        archive = self._archive
        members = MemberFilter(original=archive, target=archive, root="", writer=ContentLister())
        if archive.suffix == "zip":
            return repack_zip(self._spool.descriptor, members)
        return repack_tar(self._spool.iter_pieces(READ_BYTES), archive.suffix, members)


class ContentLister:
    """Implements ``MemberWriter``. The output is one JSON line per member, a ``Content``."""

    def __init__(self) -> None:
        self._output = OutputBuffer()
        self._member: Member | None = None
        self._sha256 = hashlib.sha256()

    def set_comments(self, comments: Comments) -> None:
        """Ignore the comments: they are no members."""

    def start_member(self, member: Member) -> None:
        self._end_member()
        self._member = member
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._sha256.update(data)

    def take_output(self, size: int) -> bytes:
        return self._output.take_all() if self._output.held_bytes >= size else b""

    def finish(self) -> Iterator[bytes]:
        self._end_member()
        yield self._output.take_all()

    def _end_member(self) -> None:
        if member := self._member:
            content = Content(
                name=member.name,
                kind=member.kind.name.lower(),
                mode=member.mode,
                mtime=member.mtime,
                link=member.link,
                size_bytes=member.size_bytes,
                sha256=self._sha256.hexdigest() if member.kind is MemberKind.FILE else "",
            )
            self._output.append(_ENCODER.encode_lines([content]))
