"""Verifies a zip stream from its first byte to its last, although its directory is at the end.

First come the members, each after its local header. They are decompressed and compared with their
CRC. Then the directory must list exactly these members. No other bytes are allowed.
"""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field

import msgspec
from isal import igzip_lib
from isal.isal_zlib import crc32

from archiver.errors import CorruptArchive, NotAnArchive, TruncatedArchive, UnsafeMember
from archiver.formats.archive_tree import IDENTITY_MAX_BYTES, ArchiveTree, shown
from archiver.formats.byte_reader import ByteReader, Parsing
from archiver.formats.compression.decompress import IsalError
from archiver.formats.limits import LimitCounter
from archiver.formats.symlinks import LINK_MAX_BYTES, SymlinkChecker, ZipLinkCandidates
from archiver.formats.zip import records
from archiver.formats.zip.extraction_paths import ExtractionPaths
from archiver.formats.zip.record_reader import (
    Entry,
    read_descriptor,
    read_directory_end,
    read_directory_entry,
    read_local_header,
)

WINDOW_BYTES = 16 * 1024
"""How much is read at a time. Bytes after the end of a member are pushed back and read again."""

STEP_BYTES = 64 * 1024
"""How much is decompressed at a time."""


@dataclass(slots=True, kw_only=True)
class _Content:
    """The measures of a member's content, and its first ``keep_bytes``."""

    limits: LimitCounter
    keep_bytes: int
    head: bytes = b""
    crc: int = 0
    packed_bytes: int = 0
    unpacked_bytes: int = 0

    def add(self, data: bytes) -> None:
        self.limits.count_unpacked(len(data))
        self.crc = crc32(data, self.crc)
        self.unpacked_bytes += len(data)
        if len(self.head) < self.keep_bytes:
            self.head += data[: self.keep_bytes - len(self.head)]

    def matches(self, entry: Entry) -> bool:
        stated = (entry.crc, entry.packed_bytes, entry.unpacked_bytes)
        return stated == (self.crc, self.packed_bytes, self.unpacked_bytes)


_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, kw_only=True)
class _EntryHash:
    """The number of entries, and a hash of all of them in their order: takes little memory."""

    entries: int = 0
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, entry: Entry) -> None:
        self.entries += 1
        self.sha256.update(_encode(entry))


def verify_zip(
    reader: ByteReader, *, tree: ArchiveTree, limits: LimitCounter, links: SymlinkChecker
) -> Parsing:
    """Read a zip to its end, and check that its members belong to *tree*.

    Only the directory shows which members are links, long after their content was read. So each
    member is first recorded with the place to which it would lead as a link. Raises BadArchive.
    """
    read, listed = _EntryHash(), _EntryHash()
    candidates, paths = ZipLinkCandidates(links=links), ExtractionPaths()
    signature = yield from reader.read_exactly(4)
    if signature != records.LOCAL.signature:
        raise NotAnArchive("the body does not begin like a zip with members")
    while signature == records.LOCAL.signature:
        limits.count_member()
        entry, start = yield from _verify_member(reader, tree, limits)
        read.add(entry)
        candidates.add_member(entry.name, start)
        paths.add_member(entry.name, entry.flags)
        signature = yield from reader.read_exactly(4)
    offset = reader.position - 4
    tail = b""
    while signature == records.CENTRAL.signature:
        first = not listed.entries
        entry, is_link, tail = yield from read_directory_entry(reader, first=first)
        paths.require_unique(entry.name)
        if is_link:
            candidates.add_link(listed.entries, entry.name)
        else:
            links.add_member(entry.name)
        listed.add(entry)
        signature = yield from reader.read_exactly(4)
    if read.sha256.digest() != listed.sha256.digest():
        raise CorruptArchive("the zip's directory does not match its members")
    links.finish()
    size = reader.position - 4 - offset
    directory = (0, listed.entries, listed.entries, size, offset)
    yield from read_directory_end(reader, signature, directory, tail)
    yield from reader.require_end()


def _verify_member(
    reader: ByteReader, tree: ArchiveTree, limits: LimitCounter
) -> Generator[None, None, tuple[Entry, bytes]]:
    """Return a member's entry, and the beginning of its content."""
    offset = reader.position - 4
    entry, zip64 = yield from read_local_header(reader, offset)
    tree.require_valid_name(entry.name)
    names_node = not entry.name.endswith(b"/") and tree.record_file(entry.name)
    content = _Content(
        limits=limits, keep_bytes=IDENTITY_MAX_BYTES if names_node else LINK_MAX_BYTES + 1
    )
    yield from _read_content(reader, entry, content)
    if entry.flags & records.SIZES_FOLLOW:
        final = yield from read_descriptor(reader, entry, zip64=zip64)
        if not entry.agrees_with(final):
            raise CorruptArchive("a member of the zip has different sizes before and after it")
        entry = final
    if not content.matches(entry):
        raise CorruptArchive("a member of the zip is damaged")
    if content.unpacked_bytes and entry.name.endswith(b"/"):
        raise UnsafeMember(f"the folder {shown(entry.name)} has content, which readers ignore")
    if names_node:
        tree.check_identity(content.head)
    return entry, content.head


def _read_content(reader: ByteReader, entry: Entry, content: _Content) -> Parsing:
    match entry.method:
        case _ if entry.flags & records.ENCRYPTED:
            raise CorruptArchive("the zip has an encrypted member")
        case _ if entry.flags & ~records.SUPPORTED_FLAGS:
            raise CorruptArchive("the zip has a member with flags that no host uses")
        case records.Method.DEFLATED:
            yield from _read_deflated(reader, content)
        case records.Method.STORED if not entry.flags & records.SIZES_FOLLOW:
            yield from _read_stored(reader, content, entry.packed_bytes)
        case _:
            raise CorruptArchive("the zip has a member with a compression that no host uses")


def _read_deflated(reader: ByteReader, content: _Content) -> Parsing:
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    while not inflater.eof:
        data = b""
        if inflater.needs_input:
            data = yield from reader.read_some(WINDOW_BYTES)
            if not data:
                raise TruncatedArchive("the zip is truncated within a member")
        try:
            content.add(inflater.decompress(data, STEP_BYTES))
        except IsalError as exc:
            raise CorruptArchive("a member of the zip is damaged") from exc
        content.packed_bytes += len(data)
    content.packed_bytes -= len(inflater.unused_data)
    reader.unread(len(inflater.unused_data))


def _read_stored(reader: ByteReader, content: _Content, size: int) -> Parsing:
    while content.packed_bytes < size:
        data = yield from reader.read_some(min(size - content.packed_bytes, STEP_BYTES))
        if not data:
            raise TruncatedArchive("the zip is truncated within a member")
        content.packed_bytes += len(data)
        content.add(data)
