"""Reads a commit, and the trees that lead from it to a subdir, out of a mirror."""

import re
from typing import NamedTuple

from archiver.errors import MirrorFailed, NotPackable, UnknownRev, UnknownSubdir, WrongTree
from archiver.git_objects import (
    EXECUTABLE,
    FILE,
    FOLDER,
    SUBMODULE,
    CommitRecord,
    TreeEntry,
    object_id,
    parse_tree,
    tree_of,
)
from archiver.model import Archive, Node
from archiver.sources.git.mirror import Mirror

COMMIT_MAX_BYTES = 1 << 20
"""Size of a commit object. Most of a large one is signatures of merged tags."""

TREE_MAX_BYTES = 64 << 20
"""Size of the tree object of one folder. Real ones have some 100 kB."""

_UNFIT_DATE = re.compile(rb"^committer [^\n]*> +(?:-[0-9]|[0-9]{19})", re.MULTILINE)
"""Git reads such a number of seconds as one of 64 bits without a sign, and writes that to a tar."""


class Gitlink(NamedTuple):
    """A submodule in a tree: the path in its repository, and the commit that the tree names."""

    path: str
    node: Node


async def read_commit(mirror: Mirror, archive: Archive) -> tuple[CommitRecord, Gitlink | None]:
    """Return the commit, and the trees above the subdir, after a check of their ids.

    If *archive* has submodules and its subdir is in one, or is one, the trees lead to that, and it
    is returned as well.

    Raises UnknownRev if the node is not a commit, UnknownSubdir, NotPackable for a date that no
    archive can have, MirrorFailed, or GitFailed.
    """
    digits = len(archive.node)
    try:
        if (kind := await _read_type(mirror, archive)) != "commit":
            raise UnknownRev(f"{archive.node} in {archive.repo} is a {kind}, not a commit")
        commit = await _read(mirror, "commit", archive.node, COMMIT_MAX_BYTES)
        _require_date(archive, commit)
        trees: list[bytes] = []
        tree_id = tree_of(commit, digits=digits)
        names = archive.subdir.split("/") if archive.subdir else []
        for depth, name in enumerate(names, 1):
            trees.append(await _read(mirror, "tree", tree_id, TREE_MAX_BYTES))
            entry = _find(archive, trees[-1], name.encode(), is_last=depth == len(names))
            if entry.mode == SUBMODULE:
                record = CommitRecord(commit=commit, trees=tuple(trees))
                return record, Gitlink("/".join(names[:depth]), Node(entry.object_id))
            tree_id = entry.object_id
    except WrongTree as exc:
        raise MirrorFailed("an object of the commit is damaged") from exc
    return CommitRecord(commit=commit, trees=tuple(trees)), None


def _find(archive: Archive, tree: bytes, name: bytes, *, is_last: bool) -> TreeEntry:
    """Return the entry of the folder *name* in *tree*, or of the file if that may be the last."""
    for entry in parse_tree(tree, digits=len(archive.node)):
        if entry.name != name:
            continue
        if archive.submodules if entry.mode == SUBMODULE else is_last or entry.mode == FOLDER:
            return entry
    raise UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")


async def read_file(mirror: Mirror, record: CommitRecord, name: bytes, max_bytes: int) -> bytes:
    """Return the content of the file *name* in the root of a commit; empty if there is none.

    Raises MirrorFailed, or GitFailed, also for more than *max_bytes*.
    """
    digits = mirror.identity.digits
    try:
        tree = (
            record.trees[0]
            if record.trees
            else await _read(mirror, "tree", tree_of(record.commit, digits=digits), TREE_MAX_BYTES)
        )
        for entry in parse_tree(tree, digits=digits):
            if entry.name == name and entry.mode in {FILE, EXECUTABLE}:
                return await _read(mirror, "blob", entry.object_id, max_bytes)
    except WrongTree as exc:
        raise MirrorFailed("an object of the commit is damaged") from exc
    return b""


def _require_date(archive: Archive, commit: bytes) -> None:
    head, _, _ = commit.partition(b"\n\n")
    if _UNFIT_DATE.search(head):
        raise NotPackable(
            f"{archive.node} in {archive.repo} has a date before 1970, or too far in the future: "
            "git cannot write it to an archive"
        )


async def _read_type(mirror: Mirror, archive: Archive) -> str:
    return (await mirror.git.run("cat-file", "-t", archive.node)).decode("ascii").strip()


async def _read(mirror: Mirror, kind: str, name: str, max_bytes: int) -> bytes:
    content = await mirror.git.run("cat-file", kind, name, max_output_bytes=max_bytes)
    if object_id(kind, content, digits=len(name)) != name:
        raise WrongTree(f"the {kind} is another one")
    return content
