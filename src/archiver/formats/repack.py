"""Reads the members of an archive and passes them on to a filter."""

import os
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from archiver.errors import TruncatedArchive
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing
from archiver.formats.compression.decompress import CODECS, StreamDecompressor
from archiver.formats.member import MemberKind
from archiver.formats.member_filter import MemberFilter
from archiver.formats.tar.header import Header
from archiver.formats.tar.reader import parse_tar
from archiver.formats.zip.file_reader import ZipFileReader


def repack_zip(descriptor: int, members: MemberFilter) -> Iterator[bytes]:
    """Yield the output of *members* for the zip in the file *descriptor*.

    Raises:
        BadArchive, UnknownSubdir: It cannot be repacked.
    """
    zip_file = ZipFileReader(descriptor, os.fstat(descriptor).st_size)
    for entry in zip_file:
        member = entry.member
        if not members.includes(member.name):
            continue
        if member.kind is MemberKind.LINK:
            link = b"".join(zip_file.iter_content(entry))
            member = msgspec.structs.replace(member, link=link)
        members.start_member(member)
        if member.kind is MemberKind.FILE:
            for data in zip_file.iter_content(entry):
                members.write(data)
                while piece := members.take_output():
                    yield piece
        while piece := members.take_output():  # members without content produce output, too
            yield piece
    yield from members.finish()


def repack_tar(chunks: Iterable[bytes], suffix: str, members: MemberFilter) -> Iterator[bytes]:
    """Yield the output of *members* for the tar in *chunks*, compressed according to *suffix*.

    Raises:
        BadArchive, UnknownSubdir: It cannot be repacked.
    """
    parser = IncrementalParser(partial(parse_tar, read_member=partial(_pass_on, members=members)))
    codec = CODECS.get(suffix)
    decompressor = StreamDecompressor(codec=codec) if codec else None
    for chunk in chunks:
        for content in decompressor.iter_content(chunk) if decompressor else (chunk,):
            parser.feed(content)
            while piece := members.take_output():
                yield piece
    if decompressor:
        decompressor.close()
    parser.close()
    yield from members.finish()


def _pass_on(reader: ByteReader, header: Header, members: MemberFilter) -> Parsing:
    unread = header.unread_bytes
    if members.includes(header.name.rstrip(b"/")):
        member = header.member()
        members.start_member(member)
        left = member.size_bytes
        unread -= left
        while left:
            data = yield from reader.read_some(left)
            if not data:
                raise TruncatedArchive("the tar is truncated within a member")
            members.write(data)
            left -= len(data)
    yield from reader.skip(unread)
