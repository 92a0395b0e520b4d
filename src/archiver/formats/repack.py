"""Reads an archive, selects the members of a subdirectory, and moves them below another root."""

import os
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from archiver.errors import TruncatedArchive, UnknownSubdir
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing
from archiver.formats.compression.decompress import CODECS, StreamDecompressor
from archiver.formats.member import Comments, Member, MemberKind, MemberWriter
from archiver.formats.tar.header import Header
from archiver.formats.tar.reader import parse_tar
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.model import Archive

PIECE_BYTES = 1 << 20
"""Default size of the pieces of output. Equals the size of deflated blocks, which saves a copy."""


class MemberFilter:
    """Passes on to *writer* the members of *original* that *target* has as well.

    Moves them from *root* to *client_root*, if given. All pieces of output but the last have
    *piece_bytes*.
    """

    def __init__(
        self,
        *,
        original: Archive,
        target: Archive,
        root: str,
        writer: MemberWriter,
        client_root: str = "",
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._target = target
        self._piece_bytes = piece_bytes
        self._includes_all = original.subdir == target.subdir
        self._top = f"{root}/{target.subdir}".encode()
        self._root = root.encode()
        self._client_root = (client_root or root).encode()
        self._writer = writer
        self._empty = True
        self.write = writer.write

    def includes(self, name: bytes) -> bool:
        return self._includes_all or name == self._top or name.startswith(self._top + b"/")

    def set_comments(self, comments: Comments) -> None:
        """Pass on the comments of *original*. What proves a tree proves no part of it."""
        if not self._includes_all:
            comments = Comments(archive=comments.archive)
        self._writer.set_comments(comments.plain())

    def start_member(self, member: Member) -> None:
        """Start an included member. Its content must be written next."""
        self._writer.start_member(self._moved(member))
        self._empty = False

    def _moved(self, member: Member) -> Member:
        if self._client_root == self._root:
            return member
        name = self._client_root + member.name.removeprefix(self._root)
        return msgspec.structs.replace(member, name=name)

    def take_output(self) -> bytes:
        """Return the next piece of output, or nothing if there is not enough for one."""
        return self._writer.take_output(self._piece_bytes)

    def finish(self) -> Iterator[bytes]:
        """Yield the remaining output. Raises UnknownSubdir if no member was included."""
        if self._empty:
            raise UnknownSubdir(f"there is no {self._target.subdir} in {self._target.repo}")
        yield from self._writer.finish()


def repack_zip(descriptor: int, members: MemberFilter) -> Iterator[bytes]:
    """Yield the output of *members* for the zip in the file *descriptor*.

    Raises BadArchive or UnknownSubdir.
    """
    zip_file = ZipFileReader(descriptor, os.fstat(descriptor).st_size)
    members.set_comments(zip_file.comments())
    for member, entry in zip_file:
        if not members.includes(member.name):
            continue
        if member.kind is MemberKind.LINK:
            link = b"".join(zip_file.iter_content(entry))
            members.start_member(msgspec.structs.replace(member, link=link))
        else:
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

    Raises BadArchive or UnknownSubdir.
    """
    parser = IncrementalParser(
        partial(
            parse_tar,
            read_member=partial(_pass_on, members=members),
            set_comments=members.set_comments,
        )
    )
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
