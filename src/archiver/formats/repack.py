"""Reads archives for the sake of their members, and hands these on."""

import os
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from archiver.errors import TruncatedArchive
from archiver.formats.byte_reader import Incoming, Parser, Waiting
from archiver.formats.compression.decompress import CODECS, Decompression
from archiver.formats.member import Kind
from archiver.formats.member_filter import Selection
from archiver.formats.tar.header import Header
from archiver.formats.tar.reader import members
from archiver.formats.zip.file_reader import Unzip


def from_zip(descriptor: int, selection: Selection) -> Iterator[bytes]:
    """Yield what *selection* makes of the zip in the file *descriptor*.

    Raises:
        BadArchive, UnknownSubdir: Nothing can be made of it.
    """
    zipped = Unzip(descriptor, os.fstat(descriptor).st_size)
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
        while piece := selection.take():  # what has no bytes takes up room, too
            yield piece
    yield from selection.finish()


def from_tar(chunks: Iterable[bytes], suffix: str, selection: Selection) -> Iterator[bytes]:
    """Yield what *selection* makes of the tar that *chunks* are, compressed as *suffix* says.

    Raises:
        BadArchive, UnknownSubdir: Nothing can be made of it.
    """
    parser = Parser(partial(members, take=partial(_hand_on, selection=selection)))
    codec = CODECS.get(suffix)
    reader = Decompression(codec=codec, reader=parser) if codec else parser
    for chunk in chunks:
        for _ in reader.steps(chunk):
            while piece := selection.take():
                yield piece
    reader.close()
    yield from selection.finish()


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
