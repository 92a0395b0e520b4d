"""Small commits that ask for much memory, time or disk: refused at a bounded cost."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, ArchiveTooLarge, EmptyTree, NotPackable, UnsafeMember
from archiver.model import Limits
from archiver.sources.git.program import GitProgram, find_git
from archiver.tree_proof import TreeMatch
from tests.git_repositories import PERSON, GitRepository
from tests.git_world import Made, git_source_config, git_world
from tests.parts.faulty_git_host import Question, faulty_git_host, replaced, with_pack
from tests.parts.git_host import GitHost
from tests.raw_trees import Item, blob, commit_items, commit_tree, nested, tree
from tests.sources.git_packs import delta_bomb

FILE, FOLDER, SUBMODULE = b"100644", b"40000", b"160000"

MEMBERS = 20_000

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_git_left")]


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


def make(
    template: str,
    folder: Path,
    node: str,
    *,
    git: GitProgram | None = None,
    limits: Limits | None = None,
    subdir: str = "",
) -> Made:
    async def scenario() -> Made:
        config = git_source_config(template, limits=limits)
        async with git_world(config, folder, git=git) as world:
            return await world.make(node, subdir=subdir)

    return asyncio.run(scenario())


def refuse(
    git_host: GitHost,
    folder: Path,
    node: str,
    error: type[ArchiverError],
    *,
    git: GitProgram | None = None,
    limits: Limits | None = None,
    subdir: str = "",
) -> str:
    """Return the message. Fail unless *node* is refused for good after a single fetch."""
    with pytest.raises(error) as raised:
        make(git_host.template, folder, node, git=git, limits=limits, subdir=subdir)
    assert type(raised.value) is error
    assert not raised.value.retryable
    assert len(git_host.fetches) == 1
    return raised.value.message


def with_attributes(repository: GitRepository, attributes: bytes, *items: Item) -> str:
    """Commit *items* with a file of attributes, and return the node."""
    return commit_items(
        repository, Item(FILE, b".gitattributes", blob(repository, attributes)), *items
    )


def a_second_of_git() -> GitProgram:
    """Return git with a limit that a test can wait for."""
    return replace(find_git(), cpu=timedelta(seconds=1))


# Trees.


@pytest.mark.parametrize("leaf", ("files", "empty folders"))
def test_nested_trees_are_counted_before_they_are_archived(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, leaf: str
) -> None:
    """A dozen objects stand for 10**12 folders."""
    items = [Item(FILE, b"file", blob(repository, b"content"))] if leaf == "files" else []
    node = commit_tree(repository, nested(repository, tree(repository, *items), depth=12, width=10))
    message = refuse(
        git_host, tmp_path, node, ArchiveTooLarge, limits=Limits(members=MEMBERS), subdir="000001"
    )
    assert "more than 20,000 files and folders" in message
    assert git_host.fetches[0].sent_bytes < 4096


def test_folders_outside_of_the_subdir_cost_a_limited_time(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    """Git reads the whole tree before it writes a part of it."""
    bomb = nested(repository, tree(repository), depth=12, width=10)
    small = tree(repository, Item(FILE, b"file", blob(repository, b"content")))
    node = commit_items(repository, Item(FOLDER, b"bomb", bomb), Item(FOLDER, b"small", small))
    git = a_second_of_git()
    refuse(git_host, tmp_path, node, ArchiveTooLarge, git=git, subdir="small")


def test_the_sizes_of_files_are_summed_before_they_are_archived(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    big = tree(repository, Item(FILE, b"zeros", blob(repository, bytes(1 << 20))))
    node = commit_tree(repository, nested(repository, big, depth=3, width=10))
    limits = Limits(unpacked_bytes=100 << 20)
    message = refuse(git_host, tmp_path, node, ArchiveTooLarge, limits=limits)
    assert "104,857,600 bytes" in message


@pytest.mark.parametrize(("components", "fits"), ((1900, True), (5000, False)))
def test_a_path_may_be_as_deep_as_linux_allows(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, components: int, *, fits: bool
) -> None:
    node = repository.commit({"a/" * components + "file": b"content"})
    if fits:
        made = make(git_host.template, tmp_path, node)
        assert made.proof
        assert made.proof.match is TreeMatch.EXACT
    else:
        refuse(git_host, tmp_path, node, UnsafeMember)


@pytest.mark.parametrize("number", (20_000, 20_001))
def test_the_number_of_submodules_is_limited(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, number: int
) -> None:
    modules = [Item(SUBMODULE, b"%06d" % each, "1" * 40) for each in range(number)]
    node = commit_items(repository, *modules)
    if number > 20_000:
        refuse(git_host, tmp_path, node, ArchiveTooLarge)
    else:
        made = make(git_host.template, tmp_path, node)
        assert made.proof
        assert made.proof.match is TreeMatch.EXACT


def test_the_number_of_files_of_attributes_is_limited(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    folder = tree(repository, Item(FILE, b".gitattributes", blob(repository, b"a text\n")))
    names = (b"%06d" % number for number in range(20_001))
    node = commit_items(repository, *(Item(FOLDER, name, folder) for name in names))
    refuse(git_host, tmp_path, node, ArchiveTooLarge)


# Contents.


def test_a_large_file_is_streamed(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = commit_items(repository, Item(FILE, b"zeros", blob(repository, bytes(160 << 20))))
    git = replace(find_git(), memory_bytes=128 << 20)
    made = make(git_host.template, tmp_path, node, git=git, limits=Limits(ratio=2000))
    assert made.proof
    assert made.proof.match is TreeMatch.EXACT


def test_zeros_of_any_size_are_streamed_and_refused_for_their_ratio(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = commit_items(repository, Item(FILE, b"zeros", blob(repository, bytes(300 << 20))))
    git = replace(find_git(), memory_bytes=128 << 20)
    message = refuse(git_host, tmp_path, node, ArchiveTooLarge, git=git)
    assert "200 times larger" in message


def test_a_delta_of_gigabytes_is_refused_by_its_memory(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "served.git")
    repository.path.mkdir()
    repository.git("init", "--quiet", "--bare")
    node = repository.commit({"file": b"content"})
    with faulty_git_host(repository) as host:
        pack = delta_bomb(64 << 30)
        assert len(pack) < 200
        host.faults[Question.FETCH] = replaced(with_pack(pack))
        with pytest.raises(ArchiveTooLarge):
            make(host.template, tmp_path, node)
        assert host.questions.count(Question.FETCH) == 1


def test_a_commit_with_a_message_of_megabytes_is_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = commit_tree(repository, tree(repository), "m" * (2 << 20))
    refuse(git_host, tmp_path, node, ArchiveTooLarge)


# Attributes.


@pytest.mark.parametrize("attribute", (b"export-ignore", b"of-no-interest"))
def test_a_line_of_attributes_may_take_git_years(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, attribute: bytes
) -> None:
    """Before 2.41, git's time to match such a pattern grows exponentially."""
    pattern = b"/".join([b"**/a"] * 14 + [b"b"])
    items = [Item(FILE, b"file", blob(repository, b"content"))]
    for _ in range(60):
        items = [Item(FOLDER, b"a", tree(repository, *items))]
    node = with_attributes(repository, b"%s %s\n" % (pattern, attribute), *items)
    if git_takes_longer_than_a_second(repository, node):
        refuse(git_host, tmp_path, node, ArchiveTooLarge, git=a_second_of_git())
    else:
        assert make(git_host.template, tmp_path, node).proof


def git_takes_longer_than_a_second(repository: GitRepository, node: str) -> bool:
    limited = a_second_of_git()

    async def scenario() -> bool:
        try:
            git = limited.bound_to(repository.path)
            await git.run("archive", node, max_output_bytes=1 << 30)
        except Exception:  # noqa: BLE001 - whatever ended it
            return True
        return False

    return asyncio.run(scenario())


def test_many_lines_of_attributes_cost_a_limited_time(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    lines = b"".join(b"%d* export-ignore\n" % number for number in range(300_000))
    content = blob(repository, b"content")
    files = [Item(FILE, b"f%04d" % number, content) for number in range(1000)]
    node = with_attributes(repository, lines, *files)
    refuse(git_host, tmp_path, node, ArchiveTooLarge, git=a_second_of_git())


def test_macros_are_understood(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    content = blob(repository, b"$Format:%H$")
    lines = b"[attr]hidden export-ignore\n[attr]stamped export-subst\na hidden\nb stamped\n"
    files = [Item(FILE, name, content) for name in (b"a", b"b", b"c")]
    node = with_attributes(repository, lines, *files)
    made = make(git_host.template, tmp_path, node)
    with made.tar() as tar:
        names = [name.partition("/")[2] for name in tar.getnames() if "/" in name]
        stamped = tar.extractfile(f"project-{node}/b")
        assert stamped
        assert stamped.read() == node.encode()
    assert names == [".gitattributes", "b", "c"]
    assert made.proof
    assert made.proof.match is TreeMatch.ATTRIBUTES


@pytest.mark.parametrize(
    ("attributes", "subdir", "expected"),
    (
        (b"sub/secret export-ignore\n", "sub", ["sub/dos.bat", "sub/shown"]),
        (b"*.bat eol=crlf\n", "sub", ["sub/dos.bat", "sub/secret", "sub/shown"]),
        (b"*.bat eol=crlf\n", "sub/dos.bat", ["sub/dos.bat"]),
    ),
)
def test_attributes_above_the_subdir_apply_to_it(
    git_host: GitHost,
    repository: GitRepository,
    tmp_path: Path,
    attributes: bytes,
    subdir: str,
    expected: list[str],
) -> None:
    names = ("sub/dos.bat", "sub/secret", "sub/shown")
    node = repository.commit({".gitattributes": attributes, **dict.fromkeys(names, b"a\nb\n")})
    made = make(git_host.template, tmp_path, node, subdir=subdir)
    assert made.proof
    assert made.proof.match is TreeMatch.ATTRIBUTES
    with made.tar() as tar:
        assert [each.name.partition("/")[2] for each in tar if each.isfile()] == expected


@pytest.mark.parametrize(
    ("line", "subdir"),
    (("* export-ignore", ""), ("sub export-ignore", "sub"), ("sub/a export-ignore", "sub/a")),
)
def test_attributes_that_leave_out_all_files_make_an_empty_tree(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, line: str, subdir: str
) -> None:
    node = repository.commit({".gitattributes": f"{line}\n".encode(), "sub/a": b"a"})
    refuse(git_host, tmp_path, node, EmptyTree, subdir=subdir)


# Placeholders.


def stamped(repository: GitRepository, content: bytes, message: str = "Change") -> str:
    """Commit a file whose placeholders are expanded, and return the node."""
    lines, file = blob(repository, b"stamp export-subst\n"), blob(repository, content)
    items = (Item(FILE, b".gitattributes", lines), Item(FILE, b"stamp", file))
    return commit_tree(repository, tree(repository, *items), message)


def test_a_thousand_placeholders_are_expanded_and_more_are_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    described = stamped(repository, b"$Format:%(describe)$" * 1000)
    made = make(git_host.template, tmp_path / "first", described)
    assert made.proof
    assert made.proof.match is TreeMatch.ATTRIBUTES
    git_host.requests.clear()
    node = stamped(repository, b"$Format:%G?$" * 1001)
    message = refuse(git_host, tmp_path / "second", node, NotPackable)
    assert "$Format:" in message


def test_a_message_that_is_repeated_a_million_times_is_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = stamped(repository, b"$Format:" + b"%B" * 1_000_000 + b"$", "m" * 100_000)
    refuse(git_host, tmp_path, node, ArchiveTooLarge)


@pytest.fixture
def gpg_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a ``gpg`` on PATH, and return the file that it creates."""
    mark, programs = tmp_path / "gpg-ran", tmp_path / "programs"
    programs.mkdir()
    gpg = programs / "gpg"
    gpg.write_text(f"#!/bin/sh\n: > {mark}\n")
    gpg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return mark


def test_gpg_is_never_run(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, gpg_mark: Path
) -> None:
    unsigned = stamped(repository, b"$Format:%G?%GS$" * 100)
    root = repository.git("rev-parse", f"{unsigned}^{{tree}}")
    person = f"{PERSON} 1500000000 +0000"
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----\n"
    raw = f"tree {root}\nauthor {person}\ncommitter {person}\n{signature}\nSigned\n"
    node = repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw.encode())

    made = make(git_host.template, tmp_path, node)

    assert made.proof
    assert made.proof.match is TreeMatch.ATTRIBUTES
    assert not gpg_mark.exists()
    repository.git_bytes("archive", node)
    assert gpg_mark.exists(), "the host's own git runs gpg for this commit"
