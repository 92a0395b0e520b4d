"""Archives with submodules: what ``git clone --recurse-submodules`` has, proven part by part."""

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from archiver.errors import EmptyTree, UnknownSubdir
from archiver.formats.commit_proof import CommitProof, prove_commit
from archiver.formats.record_check import Verdict
from archiver.model import SUFFIXES, Node
from archiver.tree_proof import TreeMatch
from tests import git_repositories
from tests.git_world import Made, contents, git_source_config, git_world
from tests.parts.git_host import REPO, GitHost
from tests.parts.thorough import thorough
from tests.superprojects import Superproject, checked_out, with_submodules

T = TypeVar("T")

EACH_SUFFIX = ("tar.zst", "zip", *thorough(*sorted(set(SUFFIXES) - {"tar.zst", "zip"})))


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


@pytest.fixture
def superproject(git_host: GitHost) -> Superproject:
    return Superproject(git_host)


async def make(
    host: GitHost,
    folder: Path,
    node: str,
    *,
    repo: str = REPO,
    subdir: str = "",
    suffix: str = "tar.gz",
) -> Made:
    async with git_world(git_source_config(host.template), folder) as world:
        return await world.make(node, repo=repo, subdir=subdir, suffix=suffix, submodules=True)


def files_of(made: Made) -> Mapping[str, tuple[bytes, int, bytes]]:
    """Return the contents without the root directory."""
    return {name.partition("/")[2]: each for name, each in contents(made.tar()).items()}


async def prove(made: Made, folder: Path, node: str, suffix: str, subdir: str = "") -> CommitProof:
    path = folder / f"made.{suffix}"
    path.write_bytes(made.data)
    return await prove_commit(path, node=Node(node), subdir=subdir)


def test_an_archive_has_the_files_that_git_checks_out(
    superproject: Superproject, tmp_path: Path
) -> None:
    host, node = superproject.host, superproject.node
    made = run(make(host, tmp_path, node))
    assert files_of(made) == checked_out(host, REPO, node, tmp_path / "clone")


def test_the_proof_has_each_submodule_and_its_commit(
    superproject: Superproject, tmp_path: Path
) -> None:
    proof = run(make(superproject.host, tmp_path, superproject.node)).proof
    assert proof
    assert proof.match is TreeMatch.EXACT
    assert proof.tree == superproject.project.git("rev-parse", f"{superproject.node}^{{tree}}")
    one, two = proof.parts
    assert (one.origin.path, one.origin.repo, one.node) == (
        "libs/one",
        "group/one",
        superproject.one_node,
    )
    assert (two.origin.path, two.origin.repo, two.node) == (
        "libs/one/deep/two",
        "group/two",
        superproject.two_node,
    )
    assert one.origin.url == "../one.git"
    assert two.commit == superproject.two.git_bytes("cat-file", "commit", two.node)
    assert two.tree == superproject.two.git("rev-parse", f"{two.node}^{{tree}}")


@pytest.mark.parametrize("suffix", EACH_SUFFIX)
def test_every_suffix_has_the_same_proof_and_proves_itself_offline(
    superproject: Superproject, tmp_path: Path, suffix: str
) -> None:
    async def scenario() -> None:
        node = superproject.node
        made = await make(superproject.host, tmp_path, node, suffix=suffix)
        proof = await prove(made, tmp_path, node, suffix)
        assert proof.verdict is Verdict.PROVEN
        assert made.proof
        assert proof.tree == made.proof.tree
        found = [(each.path, each.node, each.verdict, each.tree) for each in proof.parts]
        expected = [
            (each.origin.path, each.node, Verdict.PROVEN, each.tree) for each in made.proof.parts
        ]
        assert found == expected

    run(scenario())


@pytest.mark.parametrize("suffix", ("tar.gz", *thorough("zip")))
@pytest.mark.parametrize(
    ("subdir", "parts"),
    (
        ("libs", ["libs/one", "libs/one/deep/two"]),
        ("libs/one", ["libs/one", "libs/one/deep/two"]),
        ("libs/one/deep/two/sub/x", ["libs/one", "libs/one/deep/two"]),
        *(
            pytest.param(subdir, parts, marks=pytest.mark.thorough)
            for subdir, parts in (
                ("libs/a", []),
                ("libs/one/one.txt", ["libs/one"]),
                ("libs/one/deep", ["libs/one", "libs/one/deep/two"]),
                ("libs/one/deep/two", ["libs/one", "libs/one/deep/two"]),
            )
        ),
    ),
)
def test_a_subdir_may_be_in_a_submodule(
    superproject: Superproject, tmp_path: Path, subdir: str, parts: list[str], suffix: str
) -> None:
    async def scenario() -> None:
        node, host = superproject.node, superproject.host
        made = await make(host, tmp_path, node, subdir=subdir, suffix=suffix)
        assert made.proof
        assert [part.origin.path for part in made.proof.parts] == parts
        proof = await prove(made, tmp_path, node, suffix, subdir)
        assert proof.verdict is Verdict.PROVEN
        assert proof.tree == made.proof.tree
        if suffix == "tar.gz":
            clone = checked_out(host, REPO, node, tmp_path / "clone")
            below = {
                name: each
                for name, each in clone.items()
                if name == subdir or name.startswith(f"{subdir}/")
            }
            assert files_of(made) == below

    run(scenario())


@pytest.mark.parametrize("subdir", ("libs/one/absent", *thorough("libs/one/one.txt/x", "libs/on")))
def test_a_subdir_that_no_submodule_has_is_unknown(
    superproject: Superproject, tmp_path: Path, subdir: str
) -> None:
    with pytest.raises(UnknownSubdir):
        run(make(superproject.host, tmp_path, superproject.node, subdir=subdir))


def test_without_submodules_a_subdir_in_one_is_unknown(
    superproject: Superproject, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with git_world(git_source_config(superproject.host.template), tmp_path) as world:
            with pytest.raises(UnknownSubdir):
                await world.make(superproject.node, subdir="libs/one")
            plain = await world.make(superproject.node)
            assert plain.proof
            assert plain.proof.parts == ()

    run(scenario())


def test_the_bytes_are_the_same_whatever_a_mirror_had_before(
    superproject: Superproject, tmp_path: Path
) -> None:
    async def scenario() -> None:
        host = superproject.host
        first = await make(host, tmp_path / "first", superproject.node)
        other = superproject.commit({"other": b"other\n"})
        async with git_world(git_source_config(host.template), tmp_path / "second") as world:
            await world.make(other, submodules=True)
            await world.make(superproject.one_node, repo="group/one")
            second = await world.make(superproject.node, submodules=True)
            again = await world.make(superproject.node, submodules=True)
        assert first.data == second.data == again.data

    run(scenario())


def test_a_moved_submodule_costs_only_what_changed(
    superproject: Superproject, tmp_path: Path
) -> None:
    async def scenario() -> None:
        host = superproject.host
        async with git_world(git_source_config(host.template), tmp_path) as world:
            await world.make(superproject.node, submodules=True)
            node = superproject.one.commit({"one.txt": b"changed\n"})
            moved = superproject.commit(urls={"libs/one": ("../one.git", node)})
            host.requests.clear()
            made = await world.make(moved, submodules=True)
        fetched = [request.target.rpartition("/")[0] for request in host.fetches]
        assert sorted(fetched) == ["/group/one.git", "/group/project.git"]
        assert b"changed\n" in {content for _, _, content in files_of(made).values()}

    run(scenario())


def test_one_repository_may_be_in_two_places_at_two_commits(
    superproject: Superproject, tmp_path: Path
) -> None:
    later = superproject.two.commit({"two.txt": b"later\n"})
    urls = {
        "a": ("../two", superproject.two_node),
        "b": ("../two.git", later),
        "c": ("../two.git", later),
    }
    node = superproject.commit(urls=urls)
    made = run(make(superproject.host, tmp_path, node))
    assert files_of(made) == checked_out(superproject.host, REPO, node, tmp_path / "clone")
    assert made.proof
    assert [part.node for part in made.proof.parts] == [superproject.two_node, later, later]


def test_each_repository_has_its_own_attributes(superproject: Superproject, tmp_path: Path) -> None:
    inner = superproject.two.commit(
        {
            ".gitattributes": b"hidden export-ignore\nversion export-subst\n",
            "hidden": b"hidden\n",
            "secret": b"not hidden: only the superproject says so\n",
            "version": b"$Format:%H$\n",
        }
    )
    node = superproject.commit(
        {".gitattributes": b"secret export-ignore\n", "secret": b"hidden\n"},
        {"lib": ("../two", inner)},
    )

    async def scenario() -> None:
        made = await make(superproject.host, tmp_path, node)
        found = {name: content for name, (_, _, content) in files_of(made).items()}
        assert set(found) == {
            *(".gitattributes", ".gitmodules"),
            *("lib/.gitattributes", "lib/secret", "lib/version"),
        }
        assert found["lib/version"] == f"{inner}\n".encode()
        assert made.proof
        assert made.proof.match is TreeMatch.ATTRIBUTES
        assert [part.match for part in made.proof.parts] == [TreeMatch.ATTRIBUTES]
        proof = await prove(made, tmp_path, node, "tar.gz")
        assert proof.verdict is Verdict.UNPROVABLE
        assert [part.verdict for part in proof.parts] == [Verdict.UNPROVABLE]

    run(scenario())


def test_a_submodule_that_attributes_leave_out_is_not_fetched(
    superproject: Superproject, tmp_path: Path
) -> None:
    urls = {
        "kept": ("../two", superproject.two_node),
        "omitted": ("https://elsewhere.example/x", "1" * 40),
        "folder/omitted": ("https://elsewhere.example/x", "1" * 40),
    }
    attributes = b"omitted export-ignore\nfolder export-ignore\n"
    node = superproject.commit({".gitattributes": attributes}, urls)
    made = run(make(superproject.host, tmp_path, node))
    assert set(files_of(made)) == {
        *(".gitattributes", ".gitmodules", "kept/two.txt", "kept/sub/x"),
    }


def test_a_submodule_may_have_no_files(superproject: Superproject, tmp_path: Path) -> None:
    empty = superproject.two.commit({})
    ignored = superproject.two.commit({".gitattributes": b"* export-ignore\n"})
    node = superproject.commit(urls={"a": ("../two", empty), "b": ("../two", ignored)})
    made = run(make(superproject.host, tmp_path, node))
    names = [name.partition("/")[2] for name in made.tar().getnames()]
    assert {"a", "b"} < set(names)
    assert not any(name.startswith(("a/", "b/")) for name in names)
    with pytest.raises(EmptyTree):
        run(make(superproject.host, tmp_path, empty, repo="group/two"))


@pytest.mark.parametrize("tree", ("ODD_NAMES", *thorough("MODES", "CASES", "ATTRIBUTES")))
def test_odd_trees_are_woven_as_git_packs_them(
    superproject: Superproject, tmp_path: Path, tree: str
) -> None:
    files = getattr(git_repositories, tree)
    inner = superproject.two.commit(files)
    node = superproject.commit(files, {"a/lib": ("../two", inner), "z" * 120: ("../two", inner)})

    async def scenario() -> None:
        host = superproject.host
        made = await make(host, tmp_path, node)
        plain = superproject.two.git_bytes("archive", "--format=tar", inner)
        (tmp_path / "plain.tar").write_bytes(plain)
        found = {
            name.removeprefix("a/lib/"): each
            for name, each in files_of(made).items()
            if name.startswith("a/lib/")
        }
        again = {
            name.partition("/")[2]: each
            for name, each in files_of(made).items()
            if name.startswith("zzz")
        }
        assert found == again
        async with git_world(git_source_config(host.template), tmp_path / "plain") as world:
            assert found == files_of(await world.make(inner, repo="group/two"))

    run(scenario())


def test_sha256_repositories_are_complete_too(git_host: GitHost, tmp_path: Path) -> None:
    lib = git_host.create("group/lib", object_format="sha256")
    lib_node = lib.commit({"lib.txt": b"lib\n"})
    project = git_host.create(object_format="sha256")
    node = project.commit(with_submodules({"a": b"a\n"}, {"lib": ("../lib", lib_node)}))

    async def scenario() -> None:
        made = await make(git_host, tmp_path, node)
        assert set(files_of(made)) == {".gitmodules", "a", "lib/lib.txt"}
        assert (await prove(made, tmp_path, node, "tar.gz")).verdict is Verdict.PROVEN

    run(scenario())


def test_a_repository_without_submodules_has_the_files_of_its_plain_archive(
    git_host: GitHost, tmp_path: Path
) -> None:
    node = git_host.create().commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            complete = await world.make(node, submodules=True, lfs=True)
            plain = await world.make(node)
        assert contents(complete.tar()) == contents(plain.tar())
        assert (await prove(complete, tmp_path, node, "tar.gz")).verdict is Verdict.PROVEN

    run(scenario())


def test_the_members_are_in_the_order_of_the_trees(
    superproject: Superproject, tmp_path: Path
) -> None:
    """A submodule sorts like a file: its members come before ``lib.txt``."""
    node = superproject.commit(
        {"lib.txt": b"", "lib0": b"", "z/a": b""}, {"lib": ("../two", superproject.two_node)}
    )
    made = run(make(superproject.host, tmp_path, node))
    names = [name.partition("/")[2] for name in made.tar().getnames()]
    order = [name for name in names if name.startswith("lib")]
    assert order == ["lib", "lib/sub", "lib/sub/x", "lib/two.txt", "lib.txt", "lib0"]


@pytest.mark.parametrize("subdir", ("omitted/sub", *thorough("omitted", "folder/omitted")))
def test_a_submodule_that_attributes_leave_out_is_no_subdir(
    superproject: Superproject, tmp_path: Path, subdir: str
) -> None:
    urls = {
        "omitted": ("../two", superproject.two_node),
        "folder/omitted": ("../two", superproject.two_node),
    }
    attributes = b"/omitted export-ignore\nfolder export-ignore\n"
    node = superproject.commit({".gitattributes": attributes}, urls)
    superproject.host.requests.clear()
    with pytest.raises(EmptyTree):
        run(make(superproject.host, tmp_path, node, subdir=subdir))
    assert len(superproject.host.fetches) == 1
