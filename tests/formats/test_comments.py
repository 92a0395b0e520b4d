"""The node and the commit record travel as comments, through every conversion."""

import asyncio
import io
import tarfile
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from archiver.errors import CorruptArchive
from archiver.formats.convert import ProcessConverter
from archiver.formats.member import Comments
from archiver.formats.workspace import Workspace
from archiver.git_objects import CommitRecord, decode_record, inject_commit_record
from archiver.model import SUFFIXES, Archive, Node
from tests.formats.git_trees import FILES, ROOT, RecordedTree, commit_of, record_of
from tests.formats.samples import decompress
from tests.formats.test_tree_check import archive_at, injected, verify
from tests.parts.git_program import Files, GitRepository, commit_files

TARS = tuple(suffix for suffix in SUFFIXES if suffix != "zip")


async def converted(
    data: bytes, original: Archive, target: Archive, folder: Path, *, client_root: str = ""
) -> bytes:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield data

    converter = ProcessConverter(workspace=Workspace(folder=folder, max_bytes=1 << 40), threads=1)
    async with converter.convert(
        chunks(), original=original, target=target, root=ROOT, client_root=client_root
    ) as pieces:
        return b"".join([piece async for piece in pieces])


def comments_of(data: bytes, suffix: str) -> Comments:
    """Return the comments as Python's libraries read them."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            first = archive.infolist()[0]
            return Comments(archive=archive.comment, first_member=first.comment)
    with tarfile.open(fileobj=io.BytesIO(decompress(suffix, data))) as tar:
        member = tar.next()
        assert member
        record = member.pax_headers.get("comment", "")
        node = tar.pax_headers.get("comment", "")
        return Comments(
            archive=node.encode(), first_member=b"" if record == node else record.encode()
        )


class Carried:
    """An archive of a commit that carries its record, and what the archive must keep."""

    def __init__(self, folder: Path, *, digits: int = 40, files: Files = FILES) -> None:
        self.repository = GitRepository(folder / "repository", digits=digits)
        self.node, files = commit_of(self.repository, files)
        self.record = record_of(self.repository, self.node, files)
        archived = self.repository.archive(self.node, root=ROOT)
        self.tar = asyncio.run(injected(archived, self.record))
        self.comments = Comments(archive=self.node.encode(), first_member=self.record.encode())
        self.folder = folder / "work"

    def convert(self, data: bytes, source: str, target: str) -> bytes:
        original = archive_at(self.node, suffix=source)
        made = archive_at(self.node, suffix=target)
        return asyncio.run(converted(data, original, made, self.folder))


@pytest.mark.parametrize("chunk_bytes", (1 << 20, 100))
def test_a_record_is_injected_into_what_git_archives(tmp_path: Path, chunk_bytes: int) -> None:
    carried = Carried(tmp_path)
    archived = carried.repository.archive(carried.node, root=ROOT)
    data = asyncio.run(injected(archived, carried.record, chunk_bytes=chunk_bytes))
    assert data == carried.tar
    assert comments_of(data, "tar") == carried.comments
    with (
        tarfile.open(fileobj=io.BytesIO(archived)) as before,
        tarfile.open(fileobj=io.BytesIO(data)) as after,
    ):
        assert after.getnames() == before.getnames()


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_comments_pass_through_every_conversion(tmp_path: Path, suffix: str) -> None:
    carried = Carried(tmp_path)
    made = carried.convert(carried.tar, "tar", suffix)
    assert comments_of(made, suffix) == carried.comments
    asyncio.run(verify(archive_at(carried.node, suffix=suffix), made, None))
    back = carried.convert(made, suffix, "tar")
    assert back == carried.convert(carried.tar, "tar", "tar")


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", TARS)
@pytest.mark.parametrize("digits", (40, 64))
def test_the_converted_archive_is_proven_by_the_record_that_it_carries(
    tmp_path: Path, suffix: str, digits: int
) -> None:
    carried = Carried(tmp_path, digits=digits)
    made = carried.convert(carried.tar, "tar", suffix)
    record = decode_record(comments_of(made, suffix).first_member)
    assert isinstance(record, CommitRecord)
    tree = RecordedTree(record, carried.node)
    verified = asyncio.run(verify(archive_at(carried.node, suffix=suffix), made, tree))
    assert verified.proof
    assert verified.proof.commit == carried.record.commit


def test_git_finds_the_node_in_a_converted_tar(tmp_path: Path) -> None:
    carried = Carried(tmp_path)
    made = carried.convert(carried.tar, "tar", "tar")
    assert carried.repository.run("get-tar-commit-id", stdin=made).decode().strip() == carried.node


@pytest.mark.parametrize("subdir", ("a", "a/deep", "a/deep/er/run.sh"))
@pytest.mark.parametrize("chunk_bytes", (1 << 20, 100))
def test_the_folders_above_a_part_are_left_out(
    tmp_path: Path, subdir: str, chunk_bytes: int
) -> None:
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    record = record_of(repository, node, files, subdir)
    archived = repository.archive(node, subdir, root=ROOT)
    data = asyncio.run(injected(archived, record, subdir, chunk_bytes=chunk_bytes))
    assert comments_of(data, "tar").first_member == record.encode()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames()[0] == f"{ROOT}/{subdir}"


def test_a_record_of_the_whole_tree_is_no_record_of_a_part(tmp_path: Path) -> None:
    carried = Carried(tmp_path)
    original, target = archive_at(carried.node), archive_at(carried.node, subdir="a")
    made = asyncio.run(converted(carried.tar, original, target, carried.folder))
    assert comments_of(made, "tar") == Comments(archive=carried.node.encode())


@pytest.mark.parametrize("root_chars", (99, 100, 101, 180, 240))
def test_a_record_joins_the_header_of_a_long_name(tmp_path: Path, root_chars: int) -> None:
    repository = GitRepository(tmp_path)
    node = commit_files(repository, {b"a/b": (0o100644, b"b")})
    root, record = "r" * root_chars, record_of(repository, node, {})
    data = asyncio.run(injected(repository.archive(node, root=root), record))
    assert comments_of(data, "tar").first_member == record.encode()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [root, f"{root}/a", f"{root}/a/b"]


@pytest.mark.parametrize("suffix", ("tar", "zip"))
def test_the_longest_record_is_carried_and_a_longer_one_left_out(
    tmp_path: Path, suffix: str
) -> None:
    repository = GitRepository(tmp_path / "repository")
    node = commit_files(repository, {b"a": (0o100644, b"a")})
    archived = repository.archive(node, root=ROOT)
    longest = CommitRecord(commit=bytes(46_032))
    assert 61_430 < len(longest.encode()) <= 61_440
    for record, kept in ((longest, longest.encode()), (CommitRecord(commit=bytes(46_033)), b"")):
        data = asyncio.run(injected(archived, record))
        archive = archive_at(node)
        made = asyncio.run(
            converted(data, archive, archive_at(node, suffix=suffix), tmp_path / "work")
        )
        asyncio.run(verify(archive_at(node, suffix=suffix), made, None))
        assert comments_of(made, suffix) == Comments(archive=node.encode(), first_member=kept)


@pytest.mark.parametrize(
    "comment", (b"", b"two\nlines", b"PK\5\6 looks like the end of a zip", b"\xff", b"x" * 1025)
)
def test_a_comment_that_some_reader_may_misread_is_left_out(comment: bytes) -> None:
    assert Comments(archive=comment, first_member=comment[:9]).plain() == Comments(
        first_member=b"x" * 9 if comment.isalpha() else b""
    )


@pytest.mark.parametrize("size", (0, 100, 512, 1023, 1024, 1500))
def test_a_tar_that_ends_in_its_first_headers_is_passed_on(tmp_path: Path, size: int) -> None:
    carried = Carried(tmp_path)
    archived = carried.repository.archive(carried.node, root=ROOT)[:size]
    assert asyncio.run(injected(archived, carried.record)) == archived


@pytest.mark.parametrize("subdir", ("", "a", "README/b"))
def test_a_tar_of_another_form_is_refused(tmp_path: Path, subdir: str) -> None:
    repository = GitRepository(tmp_path)
    node, files = commit_of(repository)
    archived = repository.archive(node, "README", root=ROOT)
    unlike_git = archived[1024:] if subdir in {"", "a"} else archived

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield unlike_git

    async def read_all() -> list[bytes]:
        record = record_of(repository, node, files)
        return [piece async for piece in inject_commit_record(chunks(), record, subdir=subdir)]

    with pytest.raises(CorruptArchive):
        asyncio.run(read_all())


def test_a_node_is_kept_without_a_record(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    node = Node(commit_files(repository, {b"a": (0o100644, b"a")}))
    archived = repository.archive(node, root=ROOT)
    archive = archive_at(node)
    made = asyncio.run(converted(archived, archive, archive, tmp_path / "work"))
    assert comments_of(made, "tar") == Comments(archive=node.encode())
