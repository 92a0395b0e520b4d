"""Reads archives for the sake of their members, and hands these on."""

from collections.abc import Iterator
from functools import partial

import msgspec

from archiver.errors import TruncatedArchive
from archiver.formats.compression import CODECS, Decompression
from archiver.formats.incoming import Incoming, Parser, Waiting
from archiver.formats.member import Kind
from archiver.formats.selection import Selection
from archiver.formats.tar import members
from archiver.formats.tar_header import Header
from archiver.formats.unzip import Unzip
from archiver.formats.workspace import Spool


def from_zip(spool: Spool, selection: Selection) -> Iterator[bytes]:
    """Yield what *selection* makes of the zip that lies in *spool*.

    Raises:
        BadArchive, UnknownSubdir: Nothing can be made of it.
    """
    zipped = Unzip(spool.descriptor, spool.size_bytes)
    for packed in zipped:
        member = packed.member
        if not selection.has(member.name):
            continue
        if member.kind is Kind.LINK:
            member = msgspec.structs.replace(member, link=b"".join(zipped.data(packed)))
        selection.begin(member)
        if member.kind is Kind.FILE:
            for data in zipped.data(packed):
                selection.write(data)
                while piece := selection.take():
                    yield piece
    yield from selection.finish()


class FromTar:
    """What *selection* makes of a tar that comes chunk by chunk, compressed as *suffix* says.

    Raises BadArchive or UnknownSubdir if nothing can be made of it.
    """

    def __init__(self, suffix: str, selection: Selection) -> None:
        self._selection = selection
        parser = Parser(partial(members, take=partial(_hand_on, selection=selection)))
        codec = CODECS.get(suffix)
        self._reader = Decompression(codec=codec, reader=parser) if codec else parser

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for _ in self._reader.steps(chunk):
            while piece := self._selection.take():
                yield piece

    def close(self) -> Iterator[bytes]:
        self._reader.close()
        yield from self._selection.finish()


def _hand_on(incoming: Incoming, header: Header, selection: Selection) -> Waiting:
    unread = header.unread_bytes
    if selection.has(header.name.rstrip(b"/")):
        member = header.member()
        selection.begin(member)
        left = member.size_bytes
        unread -= left
        while left:
            data = yield from incoming.some(left)
            if not data:
                raise TruncatedArchive("the tar ended in the middle of a member")
            selection.write(data)
            left -= len(data)
    yield from incoming.skip(unread)
