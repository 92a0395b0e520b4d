"""Proves that the files of an archive are those of a git commit, by the file and the node alone."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from archiver.errors import WrongNode, WrongRoot, WrongTree
from archiver.formats.archive_start import (
    ArchiveStart,
    detect_suffix,
    read_tar_start,
    read_zip_root,
    read_zip_start,
    require_matching_name,
)
from archiver.formats.archive_tree import ArchiveTree, shown
from archiver.formats.member import MemberKind
from archiver.formats.tar.header import OWNER_EXECUTES
from archiver.formats.verify import StreamVerifier
from archiver.formats.zip import records
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.git_objects import (
    CommitRecord,
    TreeHasher,
    decode_record,
    expected_entry,
    parse_tree,
)
from archiver.model import Archive, Node, parse_node
from archiver.runtime.threads import iterate_in_thread, run_in_thread
from archiver.tree_proof import TreeMatch, TreeProof

READ_BYTES = 1 << 20

STEP_BYTES = 16 << 20
"""How much of a zip is hashed at a time. A cancelled caller waits for it."""

PATHS_MAX = 100

ATTRIBUTES = b".gitattributes"

_ROOT = re.compile(rb"[A-Za-z0-9._+-]{1,255}")
_NO_ROOTS = frozenset({b"", b".git"})
"""Without the dots at their ends, which Windows ignores."""


class _Ambiguous(Exception):
    """Readers of the archive disagree on names or modes. The message says why."""


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
class CommitProof:
    """The verdict, and a sentence about it.

    ``tree`` is the id of the archive's files, and ``expected`` that of the commit's, as far as they
    are known. ``paths`` are some that differ, if that is known. ``suffix`` is the format, by its
    content.
    """

    verdict: Verdict
    reason: str
    tree: str = ""
    expected: str = ""
    paths: tuple[bytes, ...] = ()
    suffix: str = ""

    @property
    def has_other_files(self) -> bool:
        """Whether the files are known not to be those of the commit, for whatever reason."""
        return self.verdict is Verdict.DIFFERS or self.tree != self.expected


async def prove_commit(path: Path, *, node: Node, subdir: str = "") -> CommitProof:
    """Return whether the archive at *path* has the files of *subdir* in the commit *node*.

    The format follows from the content. Raises BadArchive if the archive is damaged or unsafe, or
    has the name of another format, and OSError.
    """
    with path.open("rb") as file:
        suffix = await run_in_thread(detect_suffix, file)
        require_matching_name(path.name, suffix)
        proof = await _prove(file, node, subdir, suffix)
    return replace(proof, suffix=suffix)


async def _prove(file: BinaryIO, node: Node, subdir: str, suffix: str) -> CommitProof:
    archive = Archive(source="file", repo="file", node=node, subdir=subdir, suffix=suffix)
    if suffix == "zip":
        await _verify(file, archive, read_zip_root(file), None)
        start = await run_in_thread(read_zip_start, file)
    else:
        start = await run_in_thread(read_tar_start, file, suffix)
    record = decode_record(start.comments.first_member)
    if record is None:
        return _without_record(start, node)
    try:
        check = _RecordCheck(record, archive)
    except (WrongNode, WrongTree) as exc:
        return CommitProof(verdict=Verdict.CONTRADICTS, reason=exc.message)
    _require_usual_root(start.root)
    return await _compare(file, archive, start.root, check)


def _require_usual_root(root: bytes) -> None:
    """Return if Archiver may have written this root directory. Raises WrongRoot.

    Others lead out of the folder to which the archive is extracted, or deceive who sees them.
    """
    if not _ROOT.fullmatch(root) or root.rstrip(b".").lower() in _NO_ROOTS:
        raise WrongRoot(f"Archiver writes no root directory such as {shown(root)}")


def _without_record(start: ArchiveStart, node: Node) -> CommitProof:
    commented = parse_node(start.comments.archive.decode(errors="replace"))
    named = commented or start.hg_node
    if named and named != node:
        return CommitProof(verdict=Verdict.DIFFERS, reason=f"it names {named}")
    if commented:
        reason = "its comment names this commit, but it has no commit record to prove the files"
    elif named:
        reason = "its .hg_archival.txt names this changeset, but nothing in it proves the files"
    else:
        reason = "it has no commit record"
    return CommitProof(verdict=Verdict.UNPROVABLE, reason=reason)


async def _compare(
    file: BinaryIO, archive: Archive, root: bytes, check: "_RecordCheck"
) -> CommitProof:
    try:
        if archive.suffix == "zip":
            await _hash_zip(file, archive, root, check)
        else:
            await _verify(file, archive, root, check)
    except WrongTree as exc:
        return check.explain(exc.message)
    except _Ambiguous as exc:
        return CommitProof(verdict=Verdict.UNPROVABLE, reason=str(exc))
    return CommitProof(
        verdict=Verdict.PROVEN,
        reason="it has exactly the files of the commit",
        tree=check.tree,
        expected=check.expected,
    )


async def _verify(
    file: BinaryIO, archive: Archive, root: bytes, check: "_RecordCheck | None"
) -> None:
    verifier = StreamVerifier(archive, root=_text(root), identity=None, tree=check, strict=True)
    position = 0
    while chunk := await run_in_thread(os.pread, file.fileno(), READ_BYTES, position):
        position += len(chunk)
        await verifier.update(chunk)
    try:
        await verifier.finish()
    finally:
        if check:
            check.subdir_tree = verifier.subdir_tree


def _tracked(mode: int) -> tuple[int, int]:
    """Return the kind, and whether the owner may execute. Early trees have modes such as 0664."""
    return mode >> 12, mode & OWNER_EXECUTES


def _text(root: bytes) -> str:
    """Return the root directory. The verifier refuses one in another encoding than UTF-8."""
    return root.decode(errors="replace")


async def _hash_zip(file: BinaryIO, archive: Archive, root: bytes, check: "_RecordCheck") -> None:
    hasher = TreeHasher(
        digits=check.digits,
        subdir=archive.subdir.encode(),
        submodules=check.submodules,
        on_entry=check.add_entry,
    )
    tree = ArchiveTree(archive=archive, root=_text(root), identity=None)
    async with aclosing(iterate_in_thread(_hash_members(file, tree, hasher))) as steps:
        async for _ in steps:
            pass
    result = hasher.finish()
    check.subdir_tree = hasher.subdir_tree
    check.conclude(result)


def _hash_members(file: BinaryIO, tree: ArchiveTree, hasher: TreeHasher) -> Iterator[int]:
    """Hash the members of a verified zip, and yield now and then how many bytes were hashed.

    Raises _Ambiguous for a name or a mode that only some readers apply as it is.
    """
    zip_file = ZipFileReader(file.fileno(), os.fstat(file.fileno()).st_size)
    done = 0
    for member, entry in zip_file:
        if zip_file.systems != {records.UNIX}:
            raise _Ambiguous("it has modes of another system than Unix, on which readers disagree")
        if not entry.flags & records.UTF_8 and not entry.name.isascii():
            raise _Ambiguous("it has a name that is not marked as UTF-8, on which readers disagree")
        path = tree.repository_path(member.name)
        if member.kind is MemberKind.FOLDER:
            hasher.add_folder(path)
        elif member.kind is MemberKind.LINK:
            hasher.add_link(path, b"".join(zip_file.iter_content(entry)))
        else:
            blob = hasher.new_blob(member.size_bytes)
            for piece in zip_file.iter_content(entry):
                blob.update(piece)
            executable = bool(member.mode & OWNER_EXECUTES)
            hasher.add_file(path, executable=executable, digest=blob.digest())
        done += member.size_bytes + len(member.name)
        if done >= STEP_BYTES:
            yield done
            done = 0


class _RecordCheck:
    """Implements ``ports.source.TreeCheck`` with nothing but the record in the archive.

    Raises WrongNode or WrongTree if the record does not lead to the subdir.
    """

    def __init__(self, record: CommitRecord, archive: Archive) -> None:
        self._record = record
        self._subdir = archive.subdir.encode()
        self._mode, self.expected = expected_entry(record, archive.node, archive.subdir)
        self.digits = len(archive.node)
        self.submodules: Mapping[bytes, str] = dict(record.submodules)
        self.tree = ""
        self.subdir_tree = b""
        self._has_attributes = any(
            entry.name == ATTRIBUTES
            for tree in record.trees
            for entry in parse_tree(tree, digits=self.digits)
        )

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:  # noqa: ARG002
        if path.rpartition(b"/")[2] == ATTRIBUTES:
            self._has_attributes = True
        if path == self._subdir and _tracked(mode) != _tracked(self._mode):
            raise WrongTree("the commit has a link or another mode there")

    def conclude(self, object_id: str) -> TreeProof:
        self.tree = object_id
        if object_id != self.expected:
            raise WrongTree("the tree of its files has another id")
        return TreeProof(commit=self._record.commit, tree=object_id, match=TreeMatch.EXACT)

    def explain(self, reason: str) -> CommitProof:
        """Return the verdict on an archive with other files, for this *reason*."""
        paths = self._differing_paths()
        verdict = Verdict.DIFFERS
        if self._has_attributes:
            verdict = Verdict.UNPROVABLE
            reason = f"{reason}, which .gitattributes of the repository may explain"
        return CommitProof(
            verdict=verdict, reason=reason, tree=self.tree, expected=self.expected, paths=paths
        )

    def _differing_paths(self) -> tuple[bytes, ...]:
        """Return the entries of the subdir that differ, if the record has its tree."""
        segments = self._subdir.count(b"/") + 1 if self._subdir else 0
        if len(self._record.trees) <= segments or not self.subdir_tree:
            return ()
        ours = set(parse_tree(self.subdir_tree, digits=self.digits))
        theirs = set(parse_tree(self._record.trees[-1], digits=self.digits))
        prefix = self._subdir + b"/" if self._subdir else b""
        names = sorted({entry.name for entry in ours ^ theirs})
        return tuple(prefix + name for name in names[:PATHS_MAX])
