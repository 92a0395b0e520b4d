"""Commits with trees that git would not write today, or never: archived if they can be."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, NotPackable, UnsafeMember
from archiver.tree_proof import TreeMatch
from tests.git_repositories import PERSON, GitRepository
from tests.git_world import Made, git_source_config, git_world
from tests.parts.git_host import GitHost
from tests.parts.thorough import thorough
from tests.raw_trees import Item, blob, commit_items, tree

FILE, EXECUTABLE, LINK, FOLDER, SUBMODULE = b"100644", b"100755", b"120000", b"40000", b"160000"

Make = Callable[[GitRepository], list[Item]]

pytestmark = pytest.mark.usefixtures("no_git_left")


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


def make(git_host: GitHost, folder: Path, node: str, subdir: str = "") -> Made:
    async def scenario() -> Made:
        async with git_world(git_source_config(git_host.template), folder) as world:
            return await world.make(node, subdir=subdir)

    return asyncio.run(scenario())


def names(made: Made) -> list[str]:
    """Return the names of all members below the root."""
    with made.tar() as tar:
        return [name.partition("/")[2] for name in tar.getnames() if "/" in name]


def file_at(*path: bytes, mode: bytes = FILE) -> Make:
    """Return a maker of a tree with one file, in folders of these names."""

    def make_items(repository: GitRepository) -> list[Item]:
        *folders, name = path
        items = [Item(mode, name, blob(repository, b"content"))]
        for folder in reversed(folders):
            items = [Item(FOLDER, folder, tree(repository, *items))]
        return items

    return make_items


def entries(*named: tuple[bytes, bytes]) -> Make:
    """Return a maker of a tree with entries of these modes and names, in this order."""

    def make_items(repository: GitRepository) -> list[Item]:
        content = blob(repository, b"target")
        folder = tree(repository, Item(FILE, b"inside", content))
        ids = {FOLDER: folder, SUBMODULE: "1" * 40}
        return [Item(mode, name, ids.get(mode, content)) for mode, name in named]

    return make_items


UNSAFE = {
    ".git": file_at(b".git", b"config"),
    ".GIT": file_at(b"sub", b".GIT", b"hooks", b"post-checkout"),
    "a file .git": file_at(b".git"),
    ".git with a dot": file_at(b".git.", b"config"),
    ".GIT with blanks": file_at(b"sub", b".GIT . ", b"config"),
    "a stream of .git": file_at(b".git::$INDEX_ALLOCATION", b"config"),
    "git~1": file_at(b"GIT~1", b"config"),
    ".git for macOS": file_at(".g\u200cit".encode(), b"config"),
    "a submodule .git": entries((SUBMODULE, b".git")),
    "..": file_at(b"..", b"escaped"),
    "a file ..": file_at(b".."),
    ".": file_at(b".", b"here"),
    "../x": file_at(b"../x"),
    "/etc/x": file_at(b"/etc/x"),
    "a//b": file_at(b"a//b"),
    "a/": file_at(b"a/"),
    "a/./b": file_at(b"a/./b"),
    "a folder /": file_at(b"/", b"x"),
    "a link .gitmodules": file_at(b"sub", b".gitmodules", mode=LINK),
}

MALFORMED = {
    "two files": entries((FILE, b"a"), (FILE, b"a")),
    "two folders": entries((FOLDER, b"a"), (FOLDER, b"a")),
    "a file and a folder": entries((FILE, b"a"), (FOLDER, b"a")),
    "others between": entries((FILE, b"a"), (FILE, b"a-b"), (FILE, b"a.b"), (FOLDER, b"a")),
    "a link and a folder": entries((LINK, b"a"), (FILE, b"a."), (FOLDER, b"a")),
    "a file below a link": entries((LINK, b"a"), (FILE, b"a/x")),
    "a submodule and a folder": entries((SUBMODULE, b"a"), (FOLDER, b"a")),
    "a folder and a name with a slash": entries((FOLDER, b"a"), (FILE, b"a/inside")),
    "wrong order": entries((FILE, b"b"), (FILE, b"a")),
    "folders sorted like files": entries((FOLDER, b"a"), (FILE, b"a.b")),
}


def refuse(git_host: GitHost, folder: Path, node: str, error: type[ArchiverError]) -> None:
    """Fail unless *node* is refused at once, for good, and without a path of this machine."""
    with pytest.raises(error) as raised:
        make(git_host, folder, node)
    assert type(raised.value) is error
    assert not raised.value.retryable
    assert str(folder) not in raised.value.message
    assert len(git_host.fetches) == 1


@pytest.mark.parametrize("case", UNSAFE)
def test_a_path_that_git_refuses_to_write_is_unsafe(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, case: str
) -> None:
    refuse(git_host, tmp_path, commit_items(repository, *UNSAFE[case](repository)), UnsafeMember)


@pytest.mark.parametrize("case", MALFORMED)
def test_a_tree_with_two_entries_of_a_name_or_in_another_order_is_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, case: str
) -> None:
    node = commit_items(repository, *MALFORMED[case](repository))
    refuse(git_host, tmp_path, node, NotPackable)


def test_a_path_that_git_refuses_also_spoils_other_folders(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    """Git reads the whole tree before it writes a part of it."""
    items = [*UNSAFE[".git"](repository), *entries((FOLDER, b"fine"))(repository)]
    node = commit_items(repository, *items)
    with pytest.raises(UnsafeMember):
        make(git_host, tmp_path, node, "fine")


@pytest.mark.parametrize(
    "named",
    (
        ((b"100664", b"a"), (FILE, b"b")),
        ((b"0040000", b"a"), (b"0100644", b"b")),
        *thorough(((b"100600", b"a"),), ((b"040000", b"a"),), ((b"40755", b"a"),)),
    ),
)
def test_modes_of_old_software_are_archived_as_git_reads_them(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, named: tuple[tuple[bytes, bytes]]
) -> None:
    content = blob(repository, b"content")
    folder = tree(repository, Item(b"100664", b"inside", content))
    items = [
        Item(mode, name, folder if int(mode, 8) >> 12 == 4 else content) for mode, name in named
    ]
    node = commit_items(repository, *items)
    made = make(git_host, tmp_path, node)
    assert made.proof
    assert made.proof.match is TreeMatch.LISTED
    expected = repository.git("ls-tree", "-r", "-t", "--name-only", node).splitlines()
    assert names(made) == expected
    if "a/inside" in expected:
        assert names(make(git_host, tmp_path, node, "a/inside")) == ["a/inside"]


def test_names_that_only_some_systems_refuse_are_archived(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    odd = [b"CON", b"a\\b", b"a\nb", b"a b.", b"c:d", b"git~2", b".gitx", "\u200cgit".encode()]
    # With attributes, git looks up every path.
    attributes = Item(FILE, b".gitattributes", blob(repository, b"none export-ignore\n"))
    items = [attributes, *entries(*((FILE, name) for name in odd))(repository)]
    made = make(
        git_host, tmp_path, commit_items(repository, *sorted(items, key=lambda item: item.name))
    )
    assert made.proof
    assert made.proof.match is TreeMatch.EXACT
    assert len(names(made)) == len(items)


@pytest.mark.parametrize("subdir", (":/plain", ":(top)plain", "pl*", ":!plain"))
def test_a_subdir_is_never_a_pattern(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, subdir: str
) -> None:
    node = repository.commit({f"{subdir}/wanted": b"content", "plain/other": b"content"})
    made = make(git_host, tmp_path, node, subdir)
    assert made.proof
    assert made.proof.match is TreeMatch.EXACT
    with made.tar() as tar:
        assert [member.name for member in tar if member.isfile()] == [
            f"project-{node}/{subdir}/wanted"
        ]


@pytest.mark.parametrize(
    ("date", "fits"),
    (
        ("0", True),
        ("4102444800", True),
        ("999999999999999999", True),
        ("-1", False),
        ("9223372036854775807", False),
        ("9" * 5000, False),
    ),
)
def test_a_date_that_no_archive_can_have_is_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, date: str, *, fits: bool
) -> None:
    root = tree(repository, *entries((FILE, b"file"))(repository))
    raw = f"tree {root}\nauthor {PERSON} 0 +0000\ncommitter {PERSON} {date} +0000\n\nOdd\n"
    arguments = ("hash-object", "-t", "commit", "-w", "--stdin", "--literally")
    node = repository.git(*arguments, stdin=raw.encode())
    if fits:
        with make(git_host, tmp_path, node).tar() as tar:
            assert tar.getmembers()[0].mtime == float(date)
    else:
        refuse(git_host, tmp_path, node, NotPackable)


def test_an_empty_folder_is_left_out(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    empty = tree(repository)
    items = [Item(FOLDER, b"empty", empty), Item(FILE, b"file", blob(repository, b"content"))]
    made = make(git_host, tmp_path, commit_items(repository, *items))
    assert made.proof
    assert made.proof.match is TreeMatch.LISTED
    assert names(made) == ["file"]
