"""Reads a tar stream: ustar, with the extensions of POSIX (PAX) and of GNU.

Unlike most readers of tar, this one requires the two blocks of zeros at the end: without them, an
archive that was cut between two members would look complete.
"""

from collections.abc import Callable, Generator
from functools import partial

from archiver.errors import CorruptArchive, NotAnArchive, UnsafeMember
from archiver.formats.archive_hasher import FileHasher
from archiver.formats.archive_tree import IDENTITY_MAX_BYTES, ArchiveTree, shown, special_bits_error
from archiver.formats.byte_reader import ByteReader, Parsing
from archiver.formats.limits import LimitCounter
from archiver.formats.member import Comments
from archiver.formats.symlinks import SymlinkChecker, classify_target
from archiver.formats.tar.extensions import EXTENSIONS, Extensions
from archiver.formats.tar.header import (
    BLOCK,
    FILE,
    KINDS,
    SYMBOLIC_LINK,
    UNSAFE,
    Header,
    parse_header,
)

ZEROS = bytes(BLOCK)
PIECE_BYTES = 1 << 20

EXTENSION_MAX_BYTES = 64 << 10
"""Maximum size of a PAX header or a long name. Real ones have some hundred bytes."""

ReadMember = Callable[[ByteReader, Header], Parsing | None]
"""Reads ``Header.unread_bytes``. Returns None if that is done already, else a parser."""


def verify_tar(
    reader: ByteReader,
    *,
    tree: ArchiveTree,
    limits: LimitCounter,
    links: SymlinkChecker,
    hasher: FileHasher | None = None,
) -> Parsing:
    """Read a tar to its end, and check that its members belong to *tree*. Raises BadArchive.

    With a *hasher*, contents are hashed instead of skipped.
    """
    verify_member = partial(_verify_member, tree=tree, links=links, limits=limits, hasher=hasher)
    yield from parse_tar(reader, verify_member)
    links.finish()


def parse_tar(
    reader: ByteReader,
    read_member: ReadMember,
    set_comments: Callable[[Comments], None] | None = None,
) -> Parsing:
    """Read a tar to its end, and call *read_member* for each of its members.

    Calls *set_comments* before the first member.
    """
    extensions = Extensions()
    any_members = False
    while True:
        block = reader.read_buffered(BLOCK) or (yield from reader.read_exactly(BLOCK))
        if block == ZEROS:
            break
        header = parse_header(block)
        if not header:
            if reader.position == BLOCK:
                raise NotAnArchive("the body does not begin like a tar")
            raise CorruptArchive("a header in the tar is damaged")
        if header.kind in EXTENSIONS:
            extensions.announce(header.kind)
            extensions.add(header.kind, (yield from _read_extension(reader, header)))
        elif header.kind in KINDS or header.kind in UNSAFE:
            if set_comments and not any_members:
                set_comments(extensions.comments)
            yield from read_member(reader, header.extended(extensions.pop())) or ()
            any_members = True
        else:  # such as parts of other volumes, and sparse files
            raise CorruptArchive("the tar has a member of a kind that no host sends")
    if not any_members:
        raise NotAnArchive("the tar has no members")
    if extensions.announced:
        raise CorruptArchive("the tar ends after a header that announces a member")
    yield from _read_end(reader)


def _read_extension(reader: ByteReader, header: Header) -> Generator[None, None, bytes]:
    if header.size_bytes > EXTENSION_MAX_BYTES:
        raise CorruptArchive(f"a header in the tar has more than {EXTENSION_MAX_BYTES:,} bytes")
    data = yield from reader.read_exactly(header.size_bytes)
    padding = yield from reader.read_exactly(-header.size_bytes % BLOCK)
    if padding.strip(b"\0"):  # GNU tar and Python would read a long name on
        raise CorruptArchive("a header in the tar continues after its end")
    return data


def _verify_member(
    reader: ByteReader,
    header: Header,
    tree: ArchiveTree,
    links: SymlinkChecker,
    limits: LimitCounter,
    hasher: FileHasher | None,
) -> Parsing | None:
    limits.count_member()
    tree.require_valid_name(header.name)
    if header.kind in UNSAFE:
        raise UnsafeMember(f"the member {shown(header.name)} is {UNSAFE[header.kind]}")
    if header.has_special_bits:
        raise special_bits_error(header.name)
    if header.kind == SYMBOLIC_LINK:
        links.add_link(header.name, classify_target(header.name, header.link), header.link)
    else:
        links.add_member(header.name)
    is_folder = header.is_folder
    if header.kind != FILE or is_folder:
        _require_no_content(header)
    if not is_folder and tree.record_file(header.name):
        return _inspect_identity(reader, header, tree)
    if hasher:
        return _hash_member(reader, header, tree.repository_path(header.name), hasher)
    view = reader.view_buffered(header.unread_bytes)
    if view is None:
        return _skip(reader, header, header.data_bytes)
    _require_zeros(view[header.data_bytes :])
    return None


def _skip(reader: ByteReader, header: Header, size: int) -> Parsing:
    """Skip the last *size* bytes of a member's data, and its padding."""
    yield from reader.skip(size)
    _require_zeros((yield from reader.read_exactly(header.unread_bytes - header.data_bytes)))


def _require_zeros(padding: bytes | memoryview) -> None:
    """Every host pads with zeros. Other bytes could be a zip to readers that search for its end."""
    if padding and padding != ZEROS[: len(padding)]:
        raise CorruptArchive("a member of the tar continues after its end")


def _require_no_content(header: Header) -> None:
    """Reject files named like folders, and links and folders with a size.

    Some readers skip as many bytes as the size says, others do not.
    """
    if header.is_file_named_as_folder:
        raise CorruptArchive("a file in the tar is a folder to some readers")
    if header.kind == SYMBOLIC_LINK and header.size_bytes:
        raise CorruptArchive("a link in the tar has a size, which some readers would skip")
    if header.is_folder and header.size_bytes:
        raise CorruptArchive("a folder in the tar has a size, which some readers would skip")


def _hash_member(
    reader: ByteReader, header: Header, path: bytes, hasher: FileHasher
) -> Parsing | None:
    if header.is_folder:
        hasher.add_folder(path)
    elif header.kind == SYMBOLIC_LINK:
        hasher.add_link(path, header.link)
    else:
        return _hash_file(reader, header, path, hasher)
    return None


def _hash_file(
    reader: ByteReader, header: Header, path: bytes, hasher: FileHasher
) -> Parsing | None:
    size = header.data_bytes
    view = reader.view_buffered(header.unread_bytes)
    if view is None:
        return _hash_pieces(reader, header, path, hasher)
    blob = hasher.new_file(path, size)
    blob.update(view[:size])
    _require_zeros(view[size:])
    hasher.add_file(path, executable=header.is_executable, digest=blob.digest())
    return None


def _hash_pieces(reader: ByteReader, header: Header, path: bytes, hasher: FileHasher) -> Parsing:
    left = header.data_bytes
    blob = hasher.new_file(path, left)
    while left:
        view = yield from reader.view_some(left)
        blob.update(view)
        left -= len(view)
    hasher.add_file(path, executable=header.is_executable, digest=blob.digest())
    yield from _skip(reader, header, 0)


def _inspect_identity(reader: ByteReader, header: Header, tree: ArchiveTree) -> Parsing:
    start = min(header.data_bytes, IDENTITY_MAX_BYTES)
    tree.check_identity((yield from reader.read_exactly(start)))
    yield from _skip(reader, header, header.data_bytes - start)


def _read_end(reader: ByteReader) -> Parsing:
    """Read the second block of zeros, and require that only zeros follow."""
    if (yield from reader.read_exactly(BLOCK)) != ZEROS:
        raise CorruptArchive("the tar continues after a block of zeros")
    while padding := (yield from reader.read_some(PIECE_BYTES)):
        if padding.count(0) != len(padding):
            raise CorruptArchive("there are bytes after the end of the tar")
