"""Walks through a tar stream: ustar, with the extensions of POSIX (PAX) and of GNU.

Formats: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html and
https://www.gnu.org/software/tar/manual/html_node/Standard.html. Unlike most readers of tar, it
insists on the two blocks of zeros at the end: they alone tell a whole archive from one that was cut
between two members.
"""

from collections.abc import Callable, Generator
from functools import partial

from archiver.errors import BadArchive, CorruptArchive, NotAnArchive, UnsafeMember
from archiver.formats.archive_tree import NOTE_MAX_BYTES, Tree, shown, special
from archiver.formats.byte_reader import Incoming, Waiting
from archiver.formats.limits import Meter
from archiver.formats.symlinks import Links, course
from archiver.formats.tar.header import (
    BLOCK,
    EXTENSIONS,
    FILE,
    FOLDER,
    KINDS,
    SYMBOLIC_LINK,
    UNSAFE,
    Extensions,
    Header,
    parse_header,
)

ZEROS = bytes(BLOCK)
PIECE_BYTES = 1 << 20

EXTENSION_MAX_BYTES = 64 << 10
"""Of a PAX header or a long name. Real ones have some hundred bytes."""

Take = Callable[[Incoming, Header], Waiting | None]
"""Reads ``Header.data_bytes``, and what fills up the last block; returns how, unless it is done."""


def verify_tar(incoming: Incoming, *, tree: Tree, meter: Meter, links: Links) -> Waiting:
    """Read a tar to its end, see that its members belong to *tree*, and count them.

    Raises:
        BadArchive: It is cut, damaged, empty, of something else, or goes on after its end.
    """
    yield from members(incoming, partial(_inspect, tree=tree, links=links, meter=meter))
    links.close()


def members(incoming: Incoming, take: Take) -> Waiting:
    """Read a tar to its end, and have *take* read each of its members.

    Raises:
        BadArchive: As for ``verify_tar``.
    """
    extensions = Extensions()
    any_members = False
    while True:
        block = incoming.at_hand(BLOCK) or (yield from incoming.exactly(BLOCK))
        if block == ZEROS:
            break
        header = parse_header(block)
        if not header:
            raise _unreadable(first=incoming.position == BLOCK)
        if header.kind in EXTENSIONS:
            extensions.announce(header.kind)
            extensions.learn(header.kind, (yield from _extension(incoming, header)))
        elif header.kind in KINDS or header.kind in UNSAFE:
            yield from take(incoming, header.overruled(extensions.take())) or ()
            any_members = True
        else:  # as if it went on in another volume, or had more headers than one, or were sparse
            raise CorruptArchive("the tar has a member of a kind that no host sends")
    if not any_members:
        raise NotAnArchive("the tar has no members")
    if extensions.announced:
        raise CorruptArchive("the tar ends where a member was announced")
    yield from _end(incoming)


def _unreadable(*, first: bool) -> BadArchive:
    if first:
        return NotAnArchive("what the host compressed is not a tar")
    return CorruptArchive("a header in the tar is damaged")


def _extension(incoming: Incoming, header: Header) -> Generator[None, None, bytes]:
    if header.size_bytes > EXTENSION_MAX_BYTES:
        raise CorruptArchive("a header in the tar is larger than any that makes sense")
    data = yield from incoming.exactly(header.size_bytes)
    padding = yield from incoming.exactly(-header.size_bytes % BLOCK)
    if padding.strip(b"\0"):  # GNU tar and Python would read a long name on
        raise CorruptArchive("a header in the tar goes on behind its end")
    return data


def _inspect(
    incoming: Incoming, header: Header, tree: Tree, links: Links, meter: Meter
) -> Waiting | None:
    meter.member()
    tree.check_name(header.name)
    if header.kind in UNSAFE:
        raise UnsafeMember(f"the member {shown(header.name)} is {UNSAFE[header.kind]}")
    if header.has_special_bits:
        raise special(header.name)
    if header.kind == SYMBOLIC_LINK:
        links.enter(header.name, course(header.name, header.link), header.link)
    else:
        links.check_member(header.name)
    if header.kind != FILE or header.name.endswith(b"/"):
        _check_special(header)
    is_file = header.kind != FOLDER and not header.name.endswith(b"/")
    if is_file and tree.enter(header.name):
        return _inspect_note(incoming, header, tree)
    return (
        None if incoming.skip_at_hand(header.unread_bytes) else incoming.skip(header.unread_bytes)
    )


def _check_special(header: Header) -> None:
    """Refuse sizes of what has no contents, which some readers skip; and files named as folders."""
    if header.is_file_named_as_folder:
        raise CorruptArchive("a file in the tar has the name of a folder, and some would make one")
    if header.kind == SYMBOLIC_LINK and header.size_bytes:
        raise CorruptArchive("a link in the tar has a size, and some would skip so much")
    is_folder = header.kind == FOLDER or header.name.endswith(b"/")
    if is_folder and header.size_bytes:
        raise CorruptArchive("a folder in the tar has a size, and some would skip so much")


def _inspect_note(incoming: Incoming, header: Header, tree: Tree) -> Waiting:
    start = min(header.data_bytes, NOTE_MAX_BYTES)
    tree.check_note((yield from incoming.exactly(start)))
    yield from incoming.skip(header.unread_bytes - start)


def _end(incoming: Incoming) -> Waiting:
    """Read the second block of zeros, and nothing but zeros after it."""
    if (yield from incoming.exactly(BLOCK)) != ZEROS:
        raise CorruptArchive("the tar goes on after a block of zeros")
    while padding := (yield from incoming.some(PIECE_BYTES)):
        if padding.count(0) != len(padding):
            raise CorruptArchive("something follows the end of the tar")
