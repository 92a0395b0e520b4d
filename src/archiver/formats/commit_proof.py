"""Proves that the files of an archive are those of a git commit, by the file and the node alone."""

import os
import re
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from archiver.errors import WrongNode, WrongRoot, WrongTree
from archiver.formats.archive_hasher import ArchiveHasher
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
from archiver.formats.record_check import PartProof, RecordCheck, Verdict, open_check
from archiver.formats.tar.header import OWNER_EXECUTES
from archiver.formats.verify import StreamVerifier
from archiver.formats.zip import records
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.git_objects import (
    decode_record,
)
from archiver.model import Archive, Node, parse_node
from archiver.runtime.threads import iterate_in_thread, run_in_thread

READ_BYTES = 1 << 20

STEP_BYTES = 16 << 20
"""How much of a zip is hashed at a time. A cancelled caller waits for it."""

_ROOT = re.compile(rb"[A-Za-z0-9._+-]{1,255}")
_NO_ROOTS = frozenset({b"", b".git"})
"""Without the dots at their ends, which Windows ignores."""


class _Ambiguous(Exception):
    """Readers of the archive disagree on names or modes. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitProof:
    """The verdict, and a sentence about it.

    ``tree`` is the id of the archive's files, and ``expected`` that of the commit's, as far as they
    are known. ``paths`` are some that differ, if that is known. ``suffix`` is the format, by its
    content. ``parts`` are the verdicts on the submodules whose files are in the archive, and
    ``lfs_files`` counts the Git LFS files outside of them.
    """

    verdict: Verdict
    reason: str
    tree: str = ""
    expected: str = ""
    paths: tuple[bytes, ...] = ()
    suffix: str = ""
    parts: tuple[PartProof, ...] = ()
    lfs_files: int = 0

    @property
    def has_other_files(self) -> bool:
        """Whether the files are known not to be those of the commit, for whatever reason."""
        others = any(part.tree != part.expected for part in self.parts)
        return self.verdict is Verdict.DIFFERS or self.tree != self.expected or others


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
        check = open_check(record, archive)
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
    file: BinaryIO, archive: Archive, root: bytes, check: RecordCheck
) -> CommitProof:
    try:
        if archive.suffix == "zip":
            await _hash_zip(file, archive, root, check)
        else:
            await _verify(file, archive, root, check)
    except WrongTree as exc:
        return _conclude(check, exc.message)
    except _Ambiguous as exc:
        return CommitProof(verdict=Verdict.UNPROVABLE, reason=str(exc))
    return _conclude(check)


_FROM_BEST = (Verdict.PROVEN, Verdict.UNPROVABLE, Verdict.DIFFERS)


def _conclude(check: RecordCheck, failure: str = "") -> CommitProof:
    """Return the verdict on all files, with the *failure* of those outside of submodules."""
    own_part = (check.part_proof(),) if check.path else ()
    parts = (*own_part, *check.part_proofs())
    verdict, reason = check.verdict, "it has exactly the files of the commit"
    if failure:
        reason = check.because(failure)
        if verdict is Verdict.PROVEN:  # such as a folder that comes twice
            verdict = Verdict.DIFFERS
    for part in parts:
        if _FROM_BEST.index(part.verdict) > _FROM_BEST.index(verdict):
            verdict, reason = part.verdict, f"the submodule {part.path}: {part.reason}"
    return CommitProof(
        verdict=verdict,
        reason=reason,
        tree=check.tree,
        expected=check.expected,
        paths=check.differing_paths() if failure else (),
        parts=parts,
        lfs_files=check.lfs.count if check.lfs else 0,
    )


async def _verify(file: BinaryIO, archive: Archive, root: bytes, check: RecordCheck | None) -> None:
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


def _text(root: bytes) -> str:
    """Return the root directory. The verifier refuses one in another encoding than UTF-8."""
    return root.decode(errors="replace")


async def _hash_zip(file: BinaryIO, archive: Archive, root: bytes, check: RecordCheck) -> None:
    hasher = ArchiveHasher(check)
    tree = ArchiveTree(archive=archive, root=_text(root), identity=None)
    async with aclosing(iterate_in_thread(_hash_members(file, tree, hasher))) as steps:
        async for _ in steps:
            pass
    result = hasher.finish()
    check.subdir_tree = hasher.subdir_tree
    check.conclude(result)


def _hash_members(file: BinaryIO, tree: ArchiveTree, hasher: ArchiveHasher) -> Iterator[int]:
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
            blob = hasher.new_file(path, member.size_bytes)
            for piece in zip_file.iter_content(entry):
                blob.update(piece)
            executable = bool(member.mode & OWNER_EXECUTES)
            hasher.add_file(path, executable=executable, digest=blob.digest())
        done += member.size_bytes + len(member.name)
        if done >= STEP_BYTES:
            yield done
            done = 0
