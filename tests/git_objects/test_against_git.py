"""Ids, trees and their order are those of the real git program."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import ArchiveTooLarge
from archiver.git_objects import (
    FOLDER,
    SUBMODULE,
    TreeHasher,
    object_id,
    parse_tree,
    tree_of,
)
from archiver.git_objects.tree_hasher import HELD_MAX_BYTES
from archiver.git_objects.trees import sort_key
from tests.parts.git_program import EMPTY_TREE, Files, GitRepository, commit_files, write_tree

FEW = settings(max_examples=20)
"""Each example runs git several times."""

NAMES = st.one_of(
    st.sampled_from((b"a", b"a-b", b"a.b", b"a0", b"ab", b"A", b"\xff", b" ", b"a b")),
    st.binary(min_size=1, max_size=6).map(lambda name: b"n" + name.translate(None, b"/\0")),
)
BLOBS = st.tuples(st.sampled_from((0o100644, 0o100755, 0o120000)), st.binary(max_size=40))


@pytest.fixture(params=(40, 64), scope="module")
def repository(request: pytest.FixtureRequest) -> Iterator[GitRepository]:
    with tempfile.TemporaryDirectory() as folder:
        yield GitRepository(Path(folder), digits=request.param)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Files:
    """Draw files whose paths do not contradict each other."""
    files: Files = {}
    for name in draw(st.lists(NAMES, min_size=depth == 3, max_size=4, unique=True)):
        if depth and draw(st.booleans()):
            below = draw(trees(depth=depth - 1))
            files |= {name + b"/" + path: file for path, file in below.items()}
        elif draw(st.integers(0, 4)) == 0:
            files[name] = 0o160000, b"12"
        else:
            files[name] = draw(BLOBS)
    return files


def sized(files: Files, digits: int) -> Files:
    """Return *files* with ids of submodules that have *digits*."""
    return {
        path: (mode, content * (digits // 2) if mode == SUBMODULE else content)
        for path, (mode, content) in files.items()
    }


@FEW
@given(content=st.binary(max_size=300))
def test_the_id_of_a_blob_is_that_of_git(repository: GitRepository, content: bytes) -> None:
    expected = repository.add_object("blob", content)
    assert object_id("blob", content, digits=repository.digits) == expected


@FEW
@given(files=trees())
def test_a_tree_parses_to_what_git_lists(repository: GitRepository, files: Files) -> None:
    tree = write_tree(repository, sized(files, repository.digits))
    raw = repository.read("tree", tree)
    assert object_id("tree", raw, digits=repository.digits) == tree
    listed = repository.run("ls-tree", "-z", tree).split(b"\0")[:-1]
    entries = list(parse_tree(raw, digits=repository.digits))
    kinds = {SUBMODULE: b"commit", FOLDER: b"tree"}
    assert [
        b"%06o %s %s\t%s"
        % (entry.mode, kinds.get(entry.mode, b"blob"), entry.object_id.encode(), entry.name)
        for entry in entries
    ] == listed
    keys = [sort_key(entry.name, entry.mode) for entry in entries]
    assert keys == sorted(keys)


@FEW
@given(files=trees(), announced=st.booleans())
def test_the_tree_of_hashed_members_is_that_of_git(
    repository: GitRepository, files: Files, *, announced: bool
) -> None:
    files = sized(files, repository.digits)
    expected = write_tree(repository, files)
    members = in_order(repository, expected, b"")
    hasher = TreeHasher(
        digits=repository.digits,
        subdir=b"",
        submodules={
            path: text.decode() for path, (mode, text) in files.items() if mode == 0o160000
        },
        on_entry=lambda *_: None,
    )
    for path, mode in members:
        if mode == SUBMODULE or (mode == FOLDER and announced):
            hasher.add_folder(path)
        elif mode == 0o120000:
            hasher.add_link(path, files[path][1])
        elif mode != FOLDER:
            blob = hasher.new_file(path, len(files[path][1]))
            blob.update(files[path][1])
            hasher.add_file(path, executable=mode == 0o100755, digest=blob.digest())
    assert hasher.finish() == expected
    assert hasher.subdir_tree == repository.read("tree", expected)


def in_order(repository: GitRepository, tree: str, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the paths and modes of a tree as git lists them, each folder before its entries."""
    listed = repository.run("ls-tree", "-r", "-t", "-z", tree).split(b"\0")[:-1]
    for line in listed:
        head, _, path = line.partition(b"\t")
        yield prefix + path, int(head.split(b" ")[0], 8)


def test_a_commit_names_its_tree(repository: GitRepository) -> None:
    node = commit_files(repository, {b"a": (0o100644, b"a")})
    commit = repository.read("commit", node)
    assert object_id("commit", commit, digits=repository.digits) == node
    expected = repository.run("rev-parse", f"{node}^{{tree}}").decode().strip()
    assert tree_of(commit, digits=repository.digits) == expected


def test_the_empty_tree_has_the_id_of_git(repository: GitRepository) -> None:
    hasher = TreeHasher(
        digits=repository.digits, subdir=b"", submodules={}, on_entry=lambda *_: None
    )
    hasher.add_folder(b"")
    assert hasher.finish() == EMPTY_TREE[repository.digits] == write_tree(repository, {})


def test_the_memory_for_the_entries_of_open_folders_is_bounded() -> None:
    hasher = TreeHasher(digits=40, subdir=b"", submodules={}, on_entry=lambda *_: None)
    name = b"n" * 4000
    entries = HELD_MAX_BYTES // (len(name) + len("100644 000000\0") + 20)

    def add_all(template: bytes) -> None:
        for number in range(entries + 1):
            hasher.add_file(template % number, executable=False, digest=bytes(20))

    add_all(b"a/%06d")
    with pytest.raises(ArchiveTooLarge):
        add_all(b"b/" + name + b"%06d")


def test_closed_folders_take_no_memory_but_their_ids() -> None:
    hasher = TreeHasher(digits=40, subdir=b"", submodules={}, on_entry=lambda *_: None)
    for number in range(2 * HELD_MAX_BYTES // 100_000):
        for letter in (b"a", b"b"):
            path = b"%06d/%s" % (number, letter * 50_000)
            hasher.add_file(path, executable=False, digest=bytes(20))
    assert hasher.finish()
