"""Archives of git commits, and the check of their trees by a record alone."""

from collections.abc import Mapping

from archiver.errors import WrongTree
from archiver.git_objects import CommitRecord, expected_entry
from archiver.tree_proof import TreeMatch, TreeProof
from tests.parts.git_program import Files, GitRepository, commit_files

ROOT = "proj-1"
SUBMODULE_ID = "1234567890abcdef1234567890abcdef12345678"

FILES: Files = {
    b".gitmodules": (0o100644, b"[submodule]\n"),
    b"README": (0o100644, b"read me\n"),
    b"a-b": (0o100644, b"sorts before a/\n"),
    b"a/deep/er/run.sh": (0o100755, b"#!/bin/sh\n"),
    b"a/deep/link": (0o120000, b"er/run.sh"),
    b"a/empty": (0o100644, b""),
    b"a0": (0o100644, b"sorts after a/\n"),
    b"big": (0o100644, bytes(range(256)) * 12_000),
    b"name-\xff\xfe": (0o100644, b"not UTF-8\n"),
    b"vendor/lib": (0o160000, SUBMODULE_ID.encode()),
    b"vendor/lib.txt": (0o100644, b"sorts after the submodule lib\n"),
    b"z/" + b"long-" * 30 + b"/f": (0o100644, b"a long path\n"),
}


def sized(files: Files, digits: int) -> Files:
    """Return *files* with ids of submodules that have *digits*."""
    longer = SUBMODULE_ID[:24] * (digits == 64)
    return {
        path: (mode, content + longer.encode() if mode == 0o160000 else content)
        for path, (mode, content) in files.items()
    }


def submodules_of(files: Files) -> dict[bytes, str]:
    return {path: text.decode() for path, (mode, text) in files.items() if mode == 0o160000}


def record_of(repository: GitRepository, node: str, files: Files, subdir: str = "") -> CommitRecord:
    """Return the record of a commit of *files*, for the archive of *subdir*."""
    folders = [subdir[:at] for at, letter in enumerate(subdir) if letter == "/"]
    above = ["", *folders] if subdir else []
    return CommitRecord(
        commit=repository.read("commit", node),
        trees=tuple(repository.read("tree", f"{node}:{folder}") for folder in above),
        submodules=tuple(submodules_of(files).items()),
    )


class RecordedTree:
    """Implements ``ports.TreeCheck`` by a record of the commit *node*. Notes the entries."""

    def __init__(self, record: CommitRecord, node: str, subdir: str = "") -> None:
        self._record = record
        _, self._expected = expected_entry(record, node, subdir)
        self.digits = len(node)
        self.path = b""
        self.subdir = subdir.encode()
        self.parts: Mapping[bytes, RecordedTree] = {}
        self.lfs = None
        self.submodules: Mapping[bytes, str] = dict(record.submodules)
        self.entries: list[tuple[bytes, int, str]] = []

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:
        self.entries.append((path, mode, object_id))

    def add_attributes(self, content: bytes | None) -> None:
        """Ignore the content."""

    def conclude(self, object_id: str) -> TreeProof:
        if object_id != self._expected:
            raise WrongTree("the files have another tree")
        return TreeProof(commit=self._record.commit, tree=object_id, match=TreeMatch.EXACT)


def commit_of(repository: GitRepository, files: Files = FILES) -> tuple[str, Files]:
    """Store a commit of *files*, and return its id and the files."""
    files = sized(files, repository.digits)
    return commit_files(repository, files), files
