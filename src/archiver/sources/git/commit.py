"""Reads a commit, and the trees that lead from it to a subdir, out of a mirror."""

import re

from archiver.errors import MirrorFailed, NotPackable, UnknownRev, UnknownSubdir, WrongTree
from archiver.git_objects import FOLDER, SUBMODULE, CommitRecord, object_id, parse_tree, tree_of
from archiver.model import Archive
from archiver.sources.git.mirror import Mirror

COMMIT_MAX_BYTES = 1 << 20
"""Size of a commit object. Most of a large one is signatures of merged tags."""

TREE_MAX_BYTES = 64 << 20
"""Size of the tree object of one folder. Real ones have some 100 kB."""

_UNFIT_DATE = re.compile(rb"^committer [^\n]*> +(?:-[0-9]|[0-9]{19})", re.MULTILINE)
"""Git reads such a number of seconds as one of 64 bits without a sign, and writes that to a tar."""


async def read_commit(mirror: Mirror, archive: Archive) -> CommitRecord:
    """Return the commit, and the trees above the subdir, after a check of their ids.

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
        above = archive.subdir.count("/")
        for depth, name in enumerate(archive.subdir.encode().split(b"/") if archive.subdir else ()):
            trees.append(await _read(mirror, "tree", tree_id, TREE_MAX_BYTES))
            tree_id = _find(archive, trees[-1], name, is_last=depth == above)
    except WrongTree as exc:
        raise MirrorFailed("an object of the commit is damaged") from exc
    return CommitRecord(commit=commit, trees=tuple(trees))


def _find(archive: Archive, tree: bytes, name: bytes, *, is_last: bool) -> str:
    """Return the id of the folder *name* in *tree*, or of the file if that may be the last."""
    for entry in parse_tree(tree, digits=len(archive.node)):
        if entry.name == name and entry.mode != SUBMODULE and (is_last or entry.mode == FOLDER):
            return entry.object_id
    raise UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")


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
