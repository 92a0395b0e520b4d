"""The names and comments at the beginning of an archive file. Nothing of them is proven."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from archiver.errors import NotAnArchive, TruncatedArchive
from archiver.formats.archive_tree import IDENTITY_MAX_BYTES
from archiver.formats.byte_reader import ByteReader, IncrementalParser, Parsing
from archiver.formats.compression.decompress import CODECS, StreamDecompressor
from archiver.formats.member import Comments, MemberKind
from archiver.formats.tar.header import Header
from archiver.formats.tar.reader import parse_tar
from archiver.formats.zip import records
from archiver.formats.zip.file_reader import ZipFileReader

READ_BYTES = 64 << 10

_SHORT_NAMES = {"tgz": "tar.gz", "tbz2": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}
_NAMED = re.compile(r"\.(zip|tar(?:\.gz|\.bz2|\.xz|\.zst)?|tgz|tbz2|txz|tzst)\Z")

HG_NOTE = b".hg_archival.txt"
"""The file in which Mercurial names the changeset of an archive."""

_COMMIT_COMMENT = re.compile(
    rb"PK\x05\x06.{16}(?:\x28\x00[0-9a-f]{40}|\x40\x00[0-9a-f]{64})\Z", re.DOTALL
)
"""The end record of a zip whose comment is the id of a commit. Only such zips carry a record."""

NO_COMMENTS = Comments()

_HG_NODE = re.compile(rb"^node: ([0-9a-f]{40}(?:[0-9a-f]{24})?)$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class ArchiveStart:
    """The comments, the directory of the first member, and HG_NOTE if that is the first file."""

    comments: Comments = NO_COMMENTS
    root: bytes = b""
    note: bytes = b""
    complete: bool = False

    @property
    def hg_node(self) -> str:
        """The changeset that Mercurial's note names, or nothing."""
        named = _HG_NODE.search(self.note)
        return named[1].decode() if named else ""

    def set_comments(self, comments: Comments) -> None:
        self.comments = comments

    def see(self, name: bytes) -> bool:
        """Note the next member's *name*; return whether it is Mercurial's note."""
        self.root = self.root or root_of(name)
        return name == self.root + b"/" + HG_NOTE


def root_of(name: bytes) -> bytes:
    return name.partition(b"/")[0]


def detect_suffix(file: BinaryIO) -> str:
    """Return the suffix of the archive in *file*, by its content: "tar" unless it is another."""
    head = os.pread(file.fileno(), READ_BYTES, 0)
    if not head:
        raise NotAnArchive("the file is empty")
    return suffix_of(head)


def suffix_of(head: bytes) -> str:
    """Return the suffix of an archive that begins with *head*: "tar" unless it is another."""
    if head.startswith(records.LOCAL.signature):
        return "zip"
    return next((suffix for suffix in CODECS if head.startswith(CODECS[suffix].magic)), "tar")


def require_matching_name(name: str, suffix: str) -> None:
    """Return unless a file of this *name* has another format than *suffix*.

    Programs choose the format by the name, and an archive may have a valid form in two formats.
    Raises NotAnArchive.
    """
    named = _NAMED.search(name.lower())
    if named and _SHORT_NAMES.get(named[1], named[1]) != suffix:
        raise NotAnArchive(f"the file is named like a {named[1]}, and is a {suffix}")


def may_carry_record(path: Path) -> bool:
    """Return, without reading much, whether a proof of the archive at *path* may succeed.

    Raises BadArchive, or OSError.
    """
    with path.open("rb") as file:
        suffix = detect_suffix(file)
        if suffix != "zip":
            return bool(read_tar_start(file, suffix).comments.first_member)
        file.seek(max(0, os.fstat(file.fileno()).st_size - READ_BYTES))
        return _COMMIT_COMMENT.search(file.read()) is not None


def read_tar_start(file: BinaryIO, suffix: str) -> ArchiveStart:
    """Return the start of a tar, up to its first file. Raises BadArchive."""
    start = ArchiveStart()
    read_member = partial(_read_member, start=start)
    parser = IncrementalParser(
        partial(parse_tar, read_member=read_member, set_comments=start.set_comments)
    )
    for content in _contents(file, suffix):
        parser.feed(content)
        if start.complete:
            return start
    parser.close()
    return start


def _read_member(reader: ByteReader, header: Header, start: ArchiveStart) -> Parsing:
    unread = header.unread_bytes
    is_note = start.see(header.name)
    if is_note:
        size = min(header.data_bytes, IDENTITY_MAX_BYTES)
        start.note = yield from reader.read_exactly(size)
        unread -= size
    if not header.is_folder:
        start.complete = True
        yield  # and never resume: the rest of what has arrived is of no interest
    yield from reader.skip(unread)


def _contents(file: BinaryIO, suffix: str) -> Iterator[bytes]:
    codec = CODECS.get(suffix)
    decompressor = StreamDecompressor(codec=codec) if codec else None
    position = 0
    while chunk := os.pread(file.fileno(), READ_BYTES, position):
        position += len(chunk)
        yield from decompressor.iter_content(chunk) if decompressor else (chunk,)


def read_zip_root(file: BinaryIO) -> bytes:
    """Return the directory of the first member of a zip that may not be verified yet."""
    head = os.pread(file.fileno(), records.LOCAL.size + records.FULL_16, 0)
    if len(head) < records.LOCAL.size:
        raise TruncatedArchive("the archive is truncated")
    *_, name_size, _ = records.LOCAL.unpack(head)
    return root_of(head[records.LOCAL.size :][:name_size])


def read_zip_start(file: BinaryIO) -> ArchiveStart:
    """Return the start of a zip that was verified, up to its first file."""
    zip_file = ZipFileReader(file.fileno(), os.fstat(file.fileno()).st_size)
    start = ArchiveStart(comments=zip_file.comments())
    for member, entry in zip_file:
        if start.see(member.name):
            start.note = next(iter(zip_file.iter_content(entry)), b"")[:IDENTITY_MAX_BYTES]
        if member.kind is not MemberKind.FOLDER:
            break
    return start
