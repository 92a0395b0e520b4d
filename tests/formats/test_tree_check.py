"""The verifier computes git's tree id of what it reads, and compares it with the commit's."""

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from archiver.errors import BadArchive, InternalError, WrongTree
from archiver.formats.verify import StreamVerifier
from archiver.git_objects import CommitRecord, inject_commit_record
from archiver.model import Archive, Node, Verified
from tests.formats.git_trees import ROOT, RecordedTree, commit_of, record_of
from tests.formats.samples import COMPRESS
from tests.parts.git_program import EMPTY_TREE, GitRepository, commit_files
from tests.parts.thorough import thorough

each_format = pytest.mark.parametrize("digits", (40, 64))


def archive_at(node: str, *, suffix: str = "tar", subdir: str = "") -> Archive:
    return Archive(source="git", repo="team/proj", node=Node(node), subdir=subdir, suffix=suffix)


async def verify(
    archive: Archive, data: bytes, tree: RecordedTree | None, *, chunk_bytes: int = 1 << 20
) -> Verified:
    verifier = StreamVerifier(archive, root=ROOT, identity=None, tree=tree)
    for start in range(0, len(data), chunk_bytes):
        await verifier.update(data[start : start + chunk_bytes])
    return await verifier.finish()


async def injected(
    data: bytes, record: CommitRecord, subdir: str = "", *, chunk_bytes: int = 1 << 20
) -> bytes:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    pieces = inject_commit_record(chunks(), record, subdir=subdir)
    return b"".join([piece async for piece in pieces])


@each_format
@pytest.mark.parametrize("suffix", ("tar", "tar.gz", "tar.zst"))
@pytest.mark.parametrize("chunk_bytes", (1 << 20, *thorough(777)))
def test_the_tree_of_what_git_archives_is_that_of_the_commit(
    tmp_path: Path, digits: int, suffix: str, chunk_bytes: int
) -> None:
    repository = GitRepository(tmp_path, digits=digits)
    node, files = commit_of(repository)
    tree = RecordedTree(record_of(repository, node, files), node)
    data = COMPRESS[suffix](repository.archive(node, root=ROOT))
    verified = asyncio.run(
        verify(archive_at(node, suffix=suffix), data, tree, chunk_bytes=chunk_bytes)
    )
    assert verified.proof
    assert verified.proof.tree == repository.run("rev-parse", f"{node}^{{tree}}").decode().strip()
    assert verified.proof.commit == repository.read("commit", node)
    listed = repository.run("ls-tree", "-r", "-z", node).split(b"\0")[:-1]
    assert [
        b"%06o %s %s\t%s" % (mode, b"commit" if mode == 0o160000 else b"blob", key.encode(), path)
        for path, mode, key in tree.entries
    ] == listed


@each_format
@pytest.mark.parametrize("subdir", ("a", "a/deep", "a/deep/er/run.sh", "a/empty", "vendor/lib"))
def test_a_part_of_a_tree_is_proven_by_the_trees_above_it(
    tmp_path: Path, digits: int, subdir: str
) -> None:
    repository = GitRepository(tmp_path, digits=digits)
    node, files = commit_of(repository)
    record = record_of(repository, node, files, subdir)
    tree = RecordedTree(record, node, subdir)
    data = asyncio.run(injected(repository.archive(node, subdir, root=ROOT), record, subdir))
    verified = asyncio.run(verify(archive_at(node, subdir=subdir), data, tree))
    assert verified.proof
    expected = repository.run("rev-parse", f"{node}:{subdir}").decode().strip()
    assert verified.proof.tree == expected


@each_format
def test_an_empty_tree_is_proven(tmp_path: Path, digits: int) -> None:
    repository = GitRepository(tmp_path, digits=digits)
    node = commit_files(repository, {})
    tree = RecordedTree(CommitRecord(commit=repository.read("commit", node)), node)
    verified = asyncio.run(verify(archive_at(node), repository.archive(node, root=ROOT), tree))
    assert verified.proof
    assert verified.proof.tree == EMPTY_TREE[digits]


def test_without_a_check_there_is_no_proof(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    data = repository.archive(node, root=ROOT)
    carried = asyncio.run(injected(data, record_of(repository, node, files)))
    assert asyncio.run(verify(archive_at(node), carried, None)).proof is None


def test_the_record_in_an_archive_decides_nothing(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    other = commit_files(repository, {b"other": (0o100644, b"other\n")})
    tree = RecordedTree(record_of(repository, node, files), node)
    carried = asyncio.run(
        injected(repository.archive(other, root=ROOT), record_of(repository, other, {}))
    )
    with pytest.raises(WrongTree):
        asyncio.run(verify(archive_at(node), carried, tree))


Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = []
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            members.append((member, file.read() if file else b""))
        return members


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def index_of(members: Members, name: str) -> int:
    return [member.name for member, _ in members].index(f"{ROOT}/{name}")


def change_content(members: Members) -> None:
    at = index_of(members, "README")
    members[at] = members[at][0], b"READ me\n"


def change_mode(members: Members) -> None:
    members[index_of(members, "README")][0].mode = 0o755


def change_link(members: Members) -> None:
    members[index_of(members, "a/deep/link")][0].linkname = "er/run.py"


def rename(members: Members) -> None:
    members[index_of(members, "a0")][0].name = f"{ROOT}/a1"


def remove(members: Members) -> None:
    del members[index_of(members, "a/empty")]


def add(members: Members) -> None:
    members.append((tarfile.TarInfo(f"{ROOT}/zz"), b""))


def repeat(members: Members) -> None:
    members.append(members[-1])


def repeat_folder(members: Members) -> None:
    at = index_of(members, "vendor")
    members.insert(at, members[at])


def return_to_folder(members: Members) -> None:
    members.append(members.pop(index_of(members, "a/empty")))


def return_to_root(members: Members) -> None:
    members.append(members[0])


def add_empty_folder(members: Members) -> None:
    folder = tarfile.TarInfo(f"{ROOT}/zz")
    folder.type = tarfile.DIRTYPE
    members.append((folder, b""))


def fill_submodule(members: Members) -> None:
    at = index_of(members, "vendor/lib")
    members.insert(at + 1, (tarfile.TarInfo(f"{ROOT}/vendor/lib/x"), b""))


def remove_submodule(members: Members) -> None:
    del members[index_of(members, "vendor/lib")]


def swap(members: Members) -> None:
    at = index_of(members, "README")
    members[at], members[at + 1] = members[at + 1], members[at]


CHANGES = (
    change_content,
    change_mode,
    change_link,
    rename,
    remove,
    add,
    repeat,
    repeat_folder,
    return_to_folder,
    return_to_root,
    add_empty_folder,
    fill_submodule,
    remove_submodule,
    swap,
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_archive_is_rejected(tmp_path: Path, change: object) -> None:
    assert callable(change)
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    record = record_of(repository, node, files)
    members = members_of(repository.archive(node, root=ROOT))
    asyncio.run(verify(archive_at(node), packed(members), RecordedTree(record, node)))
    change(members)
    with pytest.raises(WrongTree):
        asyncio.run(verify(archive_at(node), packed(members), RecordedTree(record, node)))


def test_folders_need_no_members_of_their_own(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    node = commit_files(repository, {b"a/b/c": (0o100644, b"c"), b"a/d": (0o100644, b"d")})
    members = members_of(repository.archive(node, root=ROOT))
    data = packed((member, content) for member, content in members if not member.isdir())
    tree = RecordedTree(record_of(repository, node, {}), node)
    assert asyncio.run(verify(archive_at(node), data, tree)).proof


def test_a_zip_stream_cannot_be_compared_with_a_commit(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    tree = RecordedTree(record_of(repository, node, files), node)
    with pytest.raises(InternalError):
        StreamVerifier(archive_at(node, suffix="zip"), root=ROOT, identity=None, tree=tree)


def test_a_truncated_archive_is_rejected_wherever_it_ends(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path)
    node = commit_files(repository, {b"a/b": (0o100644, b"b" * 700), b"c": (0o100755, b"c")})
    record = record_of(repository, node, {})
    data = repository.archive(node, root=ROOT)
    end = len(data.rstrip(b"\0")) + 1024
    for size in range(0, end, 100):
        with pytest.raises(BadArchive):
            asyncio.run(verify(archive_at(node), data[:size], RecordedTree(record, node)))
