"""No change to an archive can be mistaken for a proof, and none can crash it."""

import asyncio
import bz2
import io
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.client import record_hint
from archiver.errors import BadArchive, CorruptArchive, NotAnArchive, UnsafeMember, WrongRoot
from archiver.formats.archive_start import may_carry_record
from archiver.formats.archive_tree import ArchiveTree
from archiver.formats.commit_proof import CommitProof, prove_commit
from archiver.formats.record_check import Verdict
from archiver.git_objects import CommitRecord, object_id
from archiver.model import Node
from tests.formats.git_trees import ROOT, record_of
from tests.formats.samples import GOOD, decompress, zstd
from tests.formats.test_comments import converted
from tests.formats.test_tree_check import archive_at, injected
from tests.parts.git_program import Files, GitRepository, commit_files
from tests.parts.thorough import thorough

FILES: Files = {
    b"README": (0o100644, b"read me\n"),
    b"link": (0o120000, b"README"),
    b"sub/run": (0o100755, b"#!/bin/sh\n"),
}


class Sample(NamedTuple):
    """A small archive that is proven, and the file to write changed ones to."""

    path: Path
    node: Node
    suffix: str
    data: bytes

    def prove(self, data: bytes) -> CommitProof:
        self.path.write_bytes(data)
        return asyncio.run(prove_commit(self.path, node=self.node))


@pytest.fixture(scope="module", params=("zip", "tar.gz", *thorough("tar")))
def sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as name:
        folder, suffix = Path(name), request.param
        repository = GitRepository(folder / "repository")
        node = Node(commit_files(repository, FILES))
        record = record_of(repository, node, FILES)
        data = asyncio.run(injected(repository.archive(node, root=ROOT), record))
        original, target = archive_at(node), archive_at(node, suffix=suffix)
        made = asyncio.run(converted(data, original, target, folder / "work"))
        yield Sample(folder / "archive", node, suffix, made)


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_archive_is_proven_only_with_the_same_files(
    sample: Sample, data: st.DataObject
) -> None:
    changed = bytearray(sample.data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    try:
        proof = sample.prove(bytes(changed))
        may_carry_record(sample.path)
    except BadArchive:
        return
    if proof.verdict is Verdict.PROVEN:
        assert unpacked(bytes(changed), sample.suffix) == unpacked(sample.data, sample.suffix)


def unpacked(data: bytes, suffix: str) -> list[tuple[str, bytes]]:
    """Return the names, and the contents or targets, as Python reads them."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    with tarfile.open(fileobj=io.BytesIO(decompress(suffix, data))) as tar:
        return [(member.name, content_of(tar, member)) for member in tar]


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = None if member.issym() else tar.extractfile(member)
    return file.read() if file else member.linkname.encode(errors="surrogateescape")


@settings(max_examples=100)
@given(data=st.data())
def test_a_cut_archive_is_never_proven(sample: Sample, data: st.DataObject) -> None:
    end = len(sample.data.rstrip(b"\0")) if sample.suffix == "tar" else len(sample.data) - 1
    size = data.draw(st.integers(0, end))
    try:
        proof = sample.prove(sample.data[:size])
    except BadArchive:
        return
    assert proof.verdict is not Verdict.PROVEN


def test_the_unchanged_archive_is_proven(sample: Sample) -> None:
    assert sample.prove(sample.data).verdict is Verdict.PROVEN
    assert may_carry_record(sample.path)
    assert record_hint.may_carry_record(sample.path)


@pytest.mark.parametrize("suffix", GOOD)
def test_an_archive_of_mercurial_carries_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(GOOD[suffix])
    assert not may_carry_record(path)
    assert not record_hint.may_carry_record(path)


def renamed(data: bytes, root: str) -> bytes:
    """Return a tar with another root directory, which may be empty."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as before,
        tarfile.open(fileobj=buffer, mode="w") as after,
    ):
        for member in before:
            member.name = root + member.name.removeprefix(ROOT)
            if member.name:
                after.addfile(member, before.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()


ODD_ROOTS = (
    *("", "/x", ".", "..", "...", ".git", ".GIT", ".git.", "~", "C:", "a b", "a\\b", "\x1b[31mr"),
    *("a\nb", "\xe9", "r" * 256),
)


@pytest.mark.parametrize("root", (*ODD_ROOTS, "r", ".github", "a+b_c-1.0", "r" * 255))
def test_only_a_root_that_archiver_may_write_is_proven(tmp_path: Path, root: str) -> None:
    repository = GitRepository(tmp_path / "repository")
    node = Node(commit_files(repository, FILES))
    record = record_of(repository, node, FILES)
    data = asyncio.run(injected(repository.archive(node, root=ROOT), record))
    path = tmp_path / "archive"
    path.write_bytes(renamed(data, root))
    if root not in ODD_ROOTS:
        proof = asyncio.run(prove_commit(path, node=node))
        assert proof.verdict is Verdict.PROVEN
        return
    try:
        proof = asyncio.run(prove_commit(path, node=node))
    except (WrongRoot, UnsafeMember):
        return
    assert proof.verdict is Verdict.UNPROVABLE  # the record was at the root


def gzipped(data: bytes, *, flags: int = 0, fields: bytes = b"") -> bytes:
    """Return a member of a gzip with optional *fields* in its header."""
    deflated = zlib.compress(data, wbits=-15)
    header = b"\x1f\x8b\x08" + bytes((flags, 1, 2, 3, 4, 0, 255)) + fields
    return header + deflated + struct.pack("<II", zlib.crc32(data), len(data))


def test_a_proof_refuses_what_a_compressed_stream_hides(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    node = Node(commit_files(repository, FILES))
    record = record_of(repository, node, FILES)
    tar = asyncio.run(injected(repository.archive(node, root=ROOT), record))
    path = tmp_path / "archive"
    extra = struct.pack("<H", 9) + b"any bytes"
    for proven in (
        gzipped(tar),
        gzipped(tar, flags=8, fields=b"name.tar\0"),
        gzipped(tar[:700]) + gzipped(tar[700:]),
    ):
        path.write_bytes(proven)
        assert asyncio.run(prove_commit(path, node=node)).verdict is Verdict.PROVEN
    for refused in (
        gzipped(tar, flags=4, fields=extra),
        gzipped(tar, flags=12, fields=extra + b"name.tar\0"),
        gzipped(tar, flags=16, fields=b"a comment\0"),
        gzipped(tar) + gzipped(b""),
        gzipped(b"") + gzipped(tar),
        gzipped(tar[:700]) + gzipped(tar[700:], flags=4, fields=extra),
        bz2.compress(tar) + bz2.compress(b""),
        lzma.compress(tar) + lzma.compress(b""),
        zstd(tar) + zstd(b""),
    ):
        path.write_bytes(refused)
        with pytest.raises(CorruptArchive):
            asyncio.run(prove_commit(path, node=node))


@pytest.mark.parametrize("name", ("a.zip", "A.ZIP", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a"))
def test_the_name_of_a_proven_file_matches_its_content(sample: Sample, name: str) -> None:
    path = sample.path.with_name(name)
    path.write_bytes(sample.data)
    matches = {"zip": {"a.zip", "A.ZIP"}, "tar": {"a.tar"}, "tar.gz": {"a.tar.gz", "a.tgz"}}
    if name == "a" or name in matches[sample.suffix]:
        proof = asyncio.run(prove_commit(path, node=sample.node))
        assert (proof.verdict, proof.suffix) == (Verdict.PROVEN, sample.suffix)
        return
    with pytest.raises(NotAnArchive, match="named like"):
        asyncio.run(prove_commit(path, node=sample.node))


@pytest.mark.parametrize("root", ("", ".", "..", "/", "a/b", "a\\b"))
def test_no_archive_is_verified_without_the_name_of_its_root(root: str) -> None:
    with pytest.raises(WrongRoot):
        ArchiveTree(archive=archive_at("1" * 40), root=root, identity=None)


def test_a_commit_that_names_another_tree_contradicts(tmp_path: Path) -> None:
    """An attacker can write any record, but none whose commit has the id of the real one."""
    repository = GitRepository(tmp_path / "repository")
    node = Node(commit_files(repository, FILES))
    evil = commit_files(repository, {b"evil": (0o100644, b"evil\n")})
    commit = repository.read("commit", node)
    evil_tree = repository.run("rev-parse", f"{evil}^{{tree}}").strip()
    forged = CommitRecord(commit=b"tree %s\n" % evil_tree + commit.partition(b"\n")[2])
    assert object_id("commit", forged.commit, digits=40) != node
    path = tmp_path / "archive"
    for record, verdict in (
        (forged, Verdict.CONTRADICTS),
        (CommitRecord(commit=repository.read("commit", evil)), Verdict.CONTRADICTS),
        (CommitRecord(commit=commit), Verdict.DIFFERS),
    ):
        path.write_bytes(asyncio.run(injected(repository.archive(evil, root=ROOT), record)))
        assert asyncio.run(prove_commit(path, node=node)).verdict is verdict


def test_the_id_of_a_submodule_cannot_hide_that_files_are_missing(tmp_path: Path) -> None:
    """The bytes of a tree are equal if one long id contains the entries that follow it."""
    repository = GitRepository(tmp_path / "repository")
    files: Files = {b"lib": (0o160000, b"12" * 20), b"safety": (0o100644, b"check\n")}
    node = Node(commit_files(repository, files))
    root = repository.read("tree", f"{node}^{{tree}}")
    rest = root.removeprefix(b"160000 lib\0").hex()
    record = CommitRecord(commit=repository.read("commit", node), submodules=((b"lib", rest),))
    archived = repository.archive(node, "lib", root=ROOT)
    path = tmp_path / "archive"
    path.write_bytes(asyncio.run(injected(archived, record)))
    assert asyncio.run(prove_commit(path, node=node)).verdict is Verdict.DIFFERS


@pytest.mark.parametrize("invalid", ("", "zz" * 20, "12" * 32, "AB" * 20, "12" * 19, "\u0661" * 40))
def test_an_invalid_id_of_a_submodule_proves_nothing(tmp_path: Path, invalid: str) -> None:
    repository = GitRepository(tmp_path / "repository")
    node = Node(commit_files(repository, {b"lib": (0o160000, b"12" * 20)}))
    record = CommitRecord(commit=repository.read("commit", node), submodules=((b"lib", invalid),))
    path = tmp_path / "archive"
    path.write_bytes(asyncio.run(injected(repository.archive(node, root=ROOT), record)))
    assert asyncio.run(prove_commit(path, node=node)).verdict is Verdict.DIFFERS


def test_a_link_is_no_proof_of_a_file_with_the_same_content(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    files: Files = {b"a/b": (0o100644, b"target")}
    node = Node(commit_files(repository, files))
    other = commit_files(repository, {b"a/b": (0o120000, b"target")})
    record = record_of(repository, node, files, "a/b")
    path = tmp_path / "archive"
    for archived, verdict in ((node, Verdict.PROVEN), (other, Verdict.DIFFERS)):
        data = repository.archive(archived, "a/b", root=ROOT)
        path.write_bytes(asyncio.run(injected(data, record, "a/b")))
        proof = asyncio.run(prove_commit(path, node=node, subdir="a/b"))
        assert proof.verdict is verdict


def test_a_file_with_a_mode_of_early_versions_is_proven(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    blob = repository.add_object("blob", b"content")
    inner = repository.add_object("tree", b"100664 b\0" + bytes.fromhex(blob))
    outer = repository.add_object("tree", b"040000 a\0" + bytes.fromhex(inner))
    node = Node(repository.commit(outer))
    record = record_of(repository, node, {}, "a/b")
    path = tmp_path / "archive"
    path.write_bytes(
        asyncio.run(injected(repository.archive(node, "a/b", root=ROOT), record, "a/b"))
    )
    proof = asyncio.run(prove_commit(path, node=node, subdir="a/b"))
    assert proof.verdict is Verdict.PROVEN
