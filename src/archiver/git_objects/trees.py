"""The content of git's trees, and the tree of a commit."""

import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from archiver.errors import WrongTree

FILE, EXECUTABLE, LINK, SUBMODULE, FOLDER = 0o100644, 0o100755, 0o120000, 0o160000, 0o40000
"""The modes that git writes. Trees of early versions have others, such as 0o100664."""

_KINDS = {stat.S_IFLNK: LINK, stat.S_IFDIR: FOLDER}

_MODE = re.compile(rb"[0-7]{1,10}")
_TREE_LINE = re.compile(rb"tree ([0-9a-f]{40}(?:[0-9a-f]{24})?)\n")


class TreeEntry(NamedTuple):
    """An entry of a tree: ``name`` has no slash, ``object_id`` is in hex, ``mode`` is canonical."""

    mode: int
    name: bytes
    object_id: str


def parse_tree(raw: bytes, *, digits: int) -> Iterator[TreeEntry]:
    """Yield the entries of a tree object, whose ids have *digits*. Raises WrongTree."""
    id_bytes = digits // 2
    at = 0
    while at < len(raw):
        blank, end = raw.find(b" ", at), raw.find(b"\0", at)
        mode, name = raw[at:blank], raw[blank + 1 : end]
        after = end + 1 + id_bytes
        named = name and b"/" not in name
        if not at < blank < end or after > len(raw) or not named or not _MODE.fullmatch(mode):
            raise WrongTree("a tree object of the commit is damaged")
        yield TreeEntry(canonical_mode(int(mode, 8)), name, raw[end + 1 : after].hex())
        at = after


def canonical_mode(mode: int) -> int:
    """Return the mode that git would write today, as its ``canon_mode`` does."""
    if stat.S_ISREG(mode):
        return EXECUTABLE if mode & stat.S_IXUSR else FILE
    return _KINDS.get(stat.S_IFMT(mode), SUBMODULE)


def tree_of(commit: bytes, *, digits: int) -> str:
    """Return the id of the tree that the content of a commit object names. Raises WrongTree."""
    line = _TREE_LINE.match(commit)
    if not line or len(line[1]) != digits:
        raise WrongTree("the commit object names no tree")
    return line[1].decode()


def sort_key(name: bytes, mode: int) -> bytes:
    """Return the key by which git sorts a tree's entries: a folder's name ends with a slash."""
    return name + b"/" if mode == FOLDER else name
