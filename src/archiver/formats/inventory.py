"""Keeps an archive for a while, to tell what is in it."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

import msgspec

from archiver.drift import Content
from archiver.formats.member import Kind, Member, Output
from archiver.formats.member_filter import Selection
from archiver.formats.repack import from_tar, from_zip
from archiver.formats.workspace import Spool, Workspace
from archiver.model import Archive
from archiver.runtime.threads import iterate_in_thread, run_in_thread

READ_BYTES = 1 << 20

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Content)


class Inventory:
    """Implements ``ports.Keep``."""

    def __init__(self, *, workspace: Workspace) -> None:
        self._workspace = workspace

    @contextmanager
    def __call__(self, archive: Archive, *, size_bytes: int = 0) -> Iterator["Kept"]:
        with self._workspace.spool(expected_bytes=size_bytes) as spool:
            yield Kept(archive=archive, spool=spool)


class Kept:
    """Implements ``ports.Kept``."""

    def __init__(self, *, archive: Archive, spool: Spool) -> None:
        self._archive = archive
        self._spool = spool

    async def write(self, chunk: bytes) -> None:
        await run_in_thread(self._spool.write, chunk)

    async def members(self) -> AsyncGenerator[Sequence[Content], None]:
        async with aclosing(iterate_in_thread(self._lines())) as pieces:
            async for lines in pieces:
                yield _DECODER.decode_lines(lines)

    def _lines(self) -> Iterator[bytes]:
        archive = self._archive
        everything = Selection(given=archive, wanted=archive, root="", writer=Lister())
        if archive.suffix == "zip":
            return from_zip(self._spool.descriptor, everything)
        return from_tar(self._spool.read(READ_BYTES), archive.suffix, everything)


class Lister:
    """Implements ``Writer``: what it makes of members are lines of JSON, each a ``Content``."""

    def __init__(self) -> None:
        self._output = Output()
        self._member: Member | None = None
        self._sha256 = hashlib.sha256()

    def begin(self, member: Member) -> None:
        self._end()
        self._member = member
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._sha256.update(data)

    def take(self, size: int) -> bytes:
        return self._output.rest() if self._output.held_bytes >= size else b""

    def finish(self) -> Iterator[bytes]:
        self._end()
        yield self._output.rest()

    def _end(self) -> None:
        if member := self._member:
            content = Content(
                name=member.name,
                kind=member.kind.name.lower(),
                mode=member.mode,
                mtime=member.mtime,
                link=member.link,
                size_bytes=member.size_bytes,
                sha256=self._sha256.hexdigest() if member.kind is Kind.FILE else "",
            )
            self._output.put(_ENCODER.encode_lines([content]))
