"""The record of a commit that travels inside an archive, so that the archive can be proven.

Nothing in it needs to be trusted: each object in it must have the id that its parent names, and the
first one the id of the commit, which the reader knows.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from archiver.errors import WrongNode, WrongTree
from archiver.git_objects.ids import object_id
from archiver.git_objects.trees import FOLDER, TreeEntry, parse_tree, tree_of

RECORD_MAX_BYTES = 60 << 10
"""A longer record is left out: readers of tar and zip bound the comments that they accept."""

_NO_NAMES = frozenset({b"", b".", b".."})


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def encode(self) -> bytes:
        """Return the record as one line of ASCII: JSON with bytes in base64."""
        return msgspec.json.encode(self)

    def comment(self) -> bytes:
        """Return the line for an archive; nothing if it is too long."""
        line = self.encode()
        return line if len(line) <= RECORD_MAX_BYTES else b""


class CommitRecord(_Record, frozen=True, kw_only=True, tag_field="archiver", tag="commit-1"):
    """The objects that lead from a node to the files of an archive.

    ``commit`` is the content of the commit object. ``trees`` are those of the trees of the folders
    above the archive's subdir, from the root on; the tree of the subdir itself may follow, which
    shows where an archive differs. ``submodules`` are the paths and ids of those in the archive,
    whose folders are empty.
    """

    commit: bytes
    trees: tuple[bytes, ...] = ()
    submodules: tuple[tuple[bytes, str], ...] = ()


class RepositoryRecord(_Record, frozen=True, kw_only=True):
    """One repository of a complete archive: what a ``CommitRecord`` has, and its Git LFS files.

    ``path`` is that of the submodule in the archive, empty for the outermost repository. The paths
    of ``submodules`` begin in this repository. ``lfs`` has a number for each LFS file: how many
    other files, in the archive's order, are between it and the one before. ``pointers`` are those
    that do not have the usual form, each with the index of its file in ``lfs``.
    """

    path: bytes
    commit: bytes
    trees: tuple[bytes, ...] = ()
    submodules: tuple[tuple[bytes, str], ...] = ()
    lfs: tuple[int, ...] = ()
    pointers: tuple[tuple[int, bytes], ...] = ()


class CompleteRecord(_Record, frozen=True, kw_only=True, tag_field="archiver", tag="complete-1"):
    """The record of an archive that has the files of submodules, or Git LFS files.

    The first of ``repositories`` is the outermost one; each other one follows the one that contains
    it. The tree of that one names its commit. If the archive's subdir is in a submodule, the
    ``trees`` of the repositories around it lead to it.
    """

    repositories: tuple[RepositoryRecord, ...]


Record: TypeAlias = CommitRecord | CompleteRecord


def decode_record(line: bytes) -> Record | None:
    """Return the record that ``encode`` wrote as *line*, or None for any other line.

    The paths of submodules must be normalized, as in a tree.
    """
    if len(line) > RECORD_MAX_BYTES:
        return None
    try:
        record = msgspec.json.decode(line, type=Record)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return record if _is_sound(record) and record.encode() == line else None


def _is_sound(record: Record) -> bool:
    if isinstance(record, CommitRecord):
        return _has_paths(record.submodules)
    repositories = record.repositories
    paths = [each.path for each in repositories]
    return (
        bool(paths)
        and paths[0] == b""
        and all(map(_is_path, paths[1:]))
        and len(set(paths)) == len(paths)
        and all(_has_paths(each.submodules) for each in repositories)
        and all(gap >= 0 for each in repositories for gap in each.lfs)
    )


def _has_paths(submodules: Sequence[tuple[bytes, str]]) -> bool:
    return all(_is_path(path) for path, _ in submodules)


def _is_path(path: bytes) -> bool:
    """Return whether *path* is that of a folder of a tree, and normalized."""
    return b"\0" not in path and _NO_NAMES.isdisjoint(path.split(b"/"))


def expected_entry(
    record: CommitRecord | RepositoryRecord, node: str, subdir: str
) -> tuple[int, str]:
    """Return git's mode and id for *subdir* in the commit *node*: the root tree's if it is empty.

    Raises:
        WrongNode: The commit of the record is another one.
        WrongTree: A tree of the record is not the one that its parent names, or is missing.
    """
    digits = len(node)
    if object_id("commit", record.commit, digits=digits) != node:
        raise WrongNode("the commit in the archive is not the requested one")
    mode, expected = FOLDER, tree_of(record.commit, digits=digits)
    segments = subdir.encode().split(b"/") if subdir else []
    if len(record.trees) not in {len(segments), len(segments) + 1}:
        raise WrongTree("the archive was made of another directory of the commit")
    for tree, segment in zip(record.trees, segments, strict=False):
        _require_id(tree, mode, expected, digits)
        mode, _, expected = _find(tree, segment, digits)
    if len(record.trees) > len(segments):
        _require_id(record.trees[-1], mode, expected, digits)
    return mode, expected


def _require_id(tree: bytes, mode: int, expected: str, digits: int) -> None:
    if mode != FOLDER or object_id("tree", tree, digits=digits) != expected:
        raise WrongTree("a tree in the archive is not one of the commit")


def _find(tree: bytes, name: bytes, digits: int) -> TreeEntry:
    for entry in parse_tree(tree, digits=digits):
        if entry.name == name:
            return entry
    raise WrongTree("the commit does not have this directory")
