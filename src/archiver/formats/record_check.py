"""Compares the files of an archive with the commit record that the archive carries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from archiver.errors import WrongTree
from archiver.formats.tar.header import OWNER_EXECUTES
from archiver.git_objects import (
    LINK,
    SUBMODULE,
    CommitRecord,
    CompleteRecord,
    RepositoryRecord,
    expected_entry,
    object_id,
    parse_tree,
    tree_of,
)
from archiver.git_objects.attribute_words import NAME as ATTRIBUTES
from archiver.git_objects.attribute_words import WORDS
from archiver.git_objects.commit_record import Record
from archiver.git_objects.recorded_lfs import RecordedLfs
from archiver.model import Archive
from archiver.tree_proof import TreeMatch, TreeProof

PATHS_MAX = 100


NOT_NAMED = "it has the files of this commit, and nothing proves that the tree around it names that"


class Verdict(StrEnum):
    """What could be found out about an archive and a commit."""

    PROVEN = "proven"
    """The archive has exactly the files of the commit."""

    DIFFERS = "differs"
    """It has other files."""

    CONTRADICTS = "contradicts"
    """It names another commit, or objects that do not belong to the commit."""

    UNPROVABLE = "unprovable"
    """It does not have what a proof needs, or attributes of the repository may have changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProof:
    """The verdict on the files of a submodule at ``path``, which are to be those of ``node``.

    ``tree`` is the id of the files, empty if none are there; ``expected`` is that of the commit.
    """

    path: str
    node: str
    verdict: Verdict
    reason: str
    tree: str
    expected: str
    lfs_files: int


class RecordCheck:
    """Implements ``ports.source.TreeCheck`` for one repository, with nothing but its record.

    Files of a part may differ without an error: its ``verdict`` says so.
    """

    def __init__(
        self,
        record: CommitRecord | RepositoryRecord,
        *,
        node: str,
        path: bytes = b"",
        subdir: str = "",
        parts: "Mapping[bytes, RecordCheck] | None" = None,
        is_part: bool = False,
    ) -> None:
        self.node = node
        self.path = path
        self.subdir = subdir.encode()
        self.digits = len(node)
        self.parts: Mapping[bytes, RecordCheck] = parts or {}
        self.submodules: Mapping[bytes, str] = {
            **dict(record.submodules),
            **{inner: part.node for inner, part in self.parts.items()},
        }
        self.lfs: RecordedLfs | None = None
        if isinstance(record, RepositoryRecord) and record.lfs:
            pointers = dict(record.pointers)
            self.lfs = RecordedLfs(record.lfs, pointers=pointers, digits=self.digits)
        self._record = record
        self._mode, self.expected = expected_entry(record, node, subdir)
        self._is_part = is_part
        self.tree = ""
        self.subdir_tree = b""
        self._has_attributes = any(
            entry.name == ATTRIBUTES
            for tree in record.trees
            for entry in parse_tree(tree, digits=self.digits)
        )

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:  # noqa: ARG002
        if path.rpartition(b"/")[2] == ATTRIBUTES and mode == LINK:
            self._has_attributes = True
        if path == self.subdir and _tracked(mode) != _tracked(self._mode):
            raise WrongTree("the commit has a link or another mode there")

    def add_attributes(self, content: bytes | None) -> None:
        if content is None or any(word in content for word in WORDS):
            self._has_attributes = True

    def conclude(self, object_id: str) -> TreeProof:
        self.tree = object_id
        if object_id != self.expected and not self._is_part:
            raise WrongTree("the tree of its files has another id")
        return TreeProof(commit=self._record.commit, tree=object_id, match=TreeMatch.EXACT)

    @property
    def verdict(self) -> Verdict:
        if self.tree == self.expected:
            return Verdict.PROVEN
        return Verdict.UNPROVABLE if self._has_attributes else Verdict.DIFFERS

    def because(self, reason: str) -> str:
        """Return a *reason* why files differ, with the excuse that attributes give."""
        if self.verdict is not Verdict.UNPROVABLE:
            return reason
        return f"{reason}, which .gitattributes of the repository may explain"

    def part_proofs(self) -> Iterator[PartProof]:
        """Yield the verdicts on the parts of this repository, each before those inside it.

        Only the proven tree of a repository shows which commits its parts have.
        """
        for part in self.parts.values():
            proof = part.part_proof()
            is_named = self.verdict is Verdict.PROVEN
            if proof.verdict is Verdict.PROVEN and not is_named:
                proof = replace(proof, verdict=Verdict.UNPROVABLE, reason=NOT_NAMED)
            yield proof
            yield from part.part_proofs()

    def part_proof(self) -> PartProof:
        match self.verdict:
            case Verdict.PROVEN:
                reason = "it has exactly the files of its commit"
            case _ if not self.tree:
                reason = "its files are not in the archive, or come after a fault"
            case _:
                reason = self.because("the tree of its files has another id")
        return PartProof(
            path=self.path.decode(errors="backslashreplace"),
            node=self.node,
            verdict=self.verdict,
            reason=reason,
            tree=self.tree,
            expected=self.expected,
            lfs_files=self.lfs.count if self.lfs else 0,
        )

    def differing_paths(self) -> tuple[bytes, ...]:
        """Return the entries of the subdir that differ, if the record has its tree."""
        segments = self.subdir.count(b"/") + 1 if self.subdir else 0
        if len(self._record.trees) <= segments or not self.subdir_tree:
            return ()
        ours = set(parse_tree(self.subdir_tree, digits=self.digits))
        theirs = set(parse_tree(self._record.trees[-1], digits=self.digits))
        prefix = self.subdir + b"/" if self.subdir else b""
        names = sorted({entry.name for entry in ours ^ theirs})
        return tuple(prefix + name for name in names[:PATHS_MAX])


def _tracked(mode: int) -> tuple[int, int]:
    """Return the kind, and whether the owner may execute. Early trees have modes such as 0664."""
    return mode >> 12, mode & OWNER_EXECUTES


def open_check(record: Record, archive: Archive) -> RecordCheck:
    """Return the check of *archive*: that of the repository which its subdir is in.

    Raises WrongNode or WrongTree if the record does not lead from the archive's node to its subdir.
    """
    if isinstance(record, CommitRecord):
        return RecordCheck(record, node=archive.node, subdir=archive.subdir)
    return _Opener(record).open(b"", archive.node, archive.subdir)


class _Opener:
    """Makes the checks of the repositories in a record."""

    def __init__(self, record: CompleteRecord) -> None:
        self._records = {each.path: each for each in record.repositories}
        self._inside: dict[bytes, list[bytes]] = {path: [] for path in self._records}
        for path in self._records:
            if path:
                self._inside[self._around(path)].append(path)

    def _around(self, path: bytes) -> bytes:
        """Return the path of the innermost repository around the one at *path*."""
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._records:
                break
        return path

    def open(self, path: bytes, node: str, subdir: str, *, is_part: bool = False) -> RecordCheck:
        record = self._records[path]
        start = len(path) + 1 if path else 0
        parts = {inside[start:]: inside for inside in self._inside[path]}
        wanted = subdir.encode()
        for inner, inside in parts.items():
            if wanted == inner or wanted.startswith(inner + b"/"):
                mode, sub_node = expected_entry(record, node, inner.decode())
                if mode != SUBMODULE:
                    raise WrongTree("the commit has no submodule there")
                rest = wanted[len(inner) + 1 :].decode()
                return self.open(inside, sub_node, rest)
        return RecordCheck(
            record,
            node=node,
            path=path,
            subdir=subdir,
            parts={inner: self._part(inside, len(node)) for inner, inside in parts.items()},
            is_part=is_part,
        )

    def _part(self, path: bytes, digits: int) -> RecordCheck:
        """Return the check of a whole submodule. The tree around it must name its commit."""
        commit = self._records[path].commit
        tree_of(commit, digits=digits)
        node = object_id("commit", commit, digits=digits)
        return self.open(path, node, "", is_part=True)
