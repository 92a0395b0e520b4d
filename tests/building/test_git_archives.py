"""Archives of git hosts: made from a mirror, equal to what git itself packs, and proven."""

import asyncio
import io
import tarfile
import zipfile
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from archiver.errors import EmptyTree, UnknownRepo, UnknownRev, UnknownSubdir
from archiver.model import SUFFIXES, Completeness
from archiver.sources.config import Attributes, GitConfig
from archiver.tree_proof import TreeMatch
from tests import git_repositories
from tests.git_repositories import GitRepository, create
from tests.git_world import contents, git_archive, git_source_config, git_world
from tests.parts.git_host import REPO, GitHost

T = TypeVar("T")

TREES = {
    "simple": git_repositories.SIMPLE,
    "modes": git_repositories.MODES,
    "odd names": git_repositories.ODD_NAMES,
    "cases": git_repositories.CASES,
    "attributes": git_repositories.ATTRIBUTES,
    "LFS": git_repositories.WITH_LFS,
    "submodule": git_repositories.WITH_SUBMODULE,
}


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return create(git_host.folder / f"{REPO}.git")


def packed_by_git(repository: GitRepository, node: str, *paths: str) -> tarfile.TarFile:
    """Return git's own archive, without Archiver's settings for git."""
    root = f"--prefix=project-{node}/"
    data = repository.git_bytes("archive", "--format=tar", root, node, "--", *paths)
    return tarfile.open(fileobj=io.BytesIO(data))


@pytest.mark.parametrize("tree", TREES)
def test_an_archive_has_the_files_that_git_packs(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, tree: str
) -> None:
    node = repository.commit(TREES[tree])

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node)
            assert contents(made.tar()) == contents(packed_by_git(repository, node))
            assert made.completeness is Completeness.PROVEN
            assert made.proof
            assert made.proof.commit == repository.git_bytes("cat-file", "commit", node)
            exact = made.proof.match is TreeMatch.EXACT
            assert exact is (tree != "attributes")
            assert exact is (made.proof.tree == repository.git("rev-parse", f"{node}^{{tree}}"))

    run(scenario())


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("subdir", ("", "src", "src/lib/deep"))
def test_every_suffix_and_subdir_is_proven(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, suffix: str, subdir: str
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node, subdir=subdir, suffix=suffix)
            again = await world.make(node, subdir=subdir, suffix=suffix)
            assert made.data == again.data
            assert made.proof
            assert made.proof == again.proof
            assert made.proof.match is TreeMatch.EXACT
            assert made.proof.tree == repository.git("rev-parse", f"{node}:{subdir}")
            expected = set(contents(packed_by_git(repository, node, *([subdir] if subdir else []))))
            if suffix == "zip":
                names = set(zipfile.ZipFile(io.BytesIO(made.data)).namelist())
                assert {name for name in names if not name.endswith("/")} == expected
            elif suffix != "tar.zst":  # Python 3.14 is the first that reads it
                assert set(contents(made.tar())) == expected

    run(scenario())


def test_a_subdir_may_be_a_file_and_may_not_be_missing(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit({**git_repositories.SIMPLE, **git_repositories.WITH_SUBMODULE})

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node, subdir="src/main.c")
            assert [*contents(made.tar())] == [f"project-{node}/src/main.c"]
            assert made.proof
            assert made.proof.tree == repository.git("rev-parse", f"{node}:src/main.c")
            for missing in ("no/such", "src/main.c/x", "sr", "lib", "lib/x", "src/main.c2", "*"):
                with pytest.raises(UnknownSubdir):
                    await world.make(node, subdir=missing)

    run(scenario())


def test_sha256_repositories_are_proven(git_host: GitHost, tmp_path: Path) -> None:
    repository = create(git_host.folder / f"{REPO}.git", object_format="sha256")
    node = repository.commit(git_repositories.MODES)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            assert await world.source.resolve(REPO, "main") == node
            made = await world.make(node)
            assert made.proof
            assert made.proof.match is TreeMatch.EXACT
            assert contents(made.tar()) == contents(packed_by_git(repository, node))

    run(scenario())


def test_ignored_attributes_leave_exactly_the_files_of_the_commit(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    files = git_repositories.ATTRIBUTES
    node = repository.commit(files)
    git = GitConfig(attributes=Attributes.IGNORE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template, git=git), tmp_path) as world:
            made = await world.make(node)
            assert made.proof
            assert made.proof.match is TreeMatch.EXACT
            root = f"project-{node}/"
            found = {name.removeprefix(root): c for name, (*_, c) in contents(made.tar()).items()}
            assert found == files

    run(scenario())


def test_git_reads_the_node_from_the_archive(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node, suffix="tar")
            assert repository.git("get-tar-commit-id", stdin=made.data) == node

    run(scenario())


@pytest.mark.parametrize(
    ("template", "root"),
    (
        ("{basename}-{node}", "project-{node}"),
        ("{repo}-{node12}", "group-project-{node12}"),
        ("src", "src"),
    ),
)
def test_the_root_follows_its_template(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, template: str, root: str
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    git = GitConfig(root_template=template)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template, git=git), tmp_path) as world:
            made = await world.make(node)
            expected = root.format(node=node, node12=node[:12])
            assert {name.partition("/")[0] for name in contents(made.tar())} == {expected}

    run(scenario())


def test_the_next_commit_costs_its_difference(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    random = Random(12)  # noqa: S311 - contents that git cannot compress
    files = {f"dir{number % 7}/{number}": random.randbytes(2000) for number in range(100)}
    nodes = [repository.commit({**files, "version": b"%d" % number}) for number in range(6)]

    async def scenario() -> list[int]:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            for node in nodes:
                made = await world.make(node)
                assert contents(made.tar()) == contents(packed_by_git(repository, node))
            return [each.sent_bytes for each in git_host.requests if each.is_fetch]

    first, *rest = run(scenario())
    assert len(rest) == len(nodes) - 1
    assert max(rest) < first / 50


def test_the_folder_of_mirrors_may_be_relative(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), Path("data")) as world:
            assert (await world.make(node)).proof

    run(scenario())


def test_builds_of_an_unknown_repository_share_its_first_fetch(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    random = Random(13)  # noqa: S311 - contents that git cannot compress
    files = {f"dir{number % 7}/{number}": random.randbytes(2000) for number in range(100)}
    nodes = [repository.commit({**files, "version": b"%d" % number}) for number in range(4)]

    async def scenario() -> list[int]:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await asyncio.gather(*(world.make(node, subdir="dir1") for node in nodes))
            assert len({each.sha256 for each in made}) == len(nodes)
            return sorted(each.sent_bytes for each in git_host.requests if each.is_fetch)

    *rest, first = run(scenario())
    assert len(rest) == len(nodes) - 1
    assert max(rest) < first / 50


def test_a_second_format_asks_the_host_nothing(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            await world.make(node)
            asked = len(git_host.requests)
            await world.make(node, suffix="zip")
            await world.make(node, subdir="src")
            assert len(git_host.requests) == asked

    run(scenario())


def test_what_is_not_a_commit_with_files_is_refused(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    empty = repository.commit({}, ref="refs/heads/empty", parents=())
    tag = repository.annotated_tag("v1", node)
    blob = repository.git("rev-parse", f"{node}:README")
    tree = repository.git("rev-parse", f"{node}^{{tree}}")

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            with pytest.raises(EmptyTree):
                await world.make(empty)
            for other in (tag, blob, tree, "1" * 40, "1" * 64):
                with pytest.raises(UnknownRev):
                    await world.make(other)
            (git_host.folder / f"{REPO}.git").rename(git_host.folder / "moved.git")
            with pytest.raises(UnknownRepo):
                await world.make("2" * 40)

    run(scenario())


def test_the_archive_says_where_it_comes_from(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    template = "https://forge.example/{repo}/archive/{node}.{suffix}"
    git = GitConfig(archive_url_template=template)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template, git=git), tmp_path) as world:
            made = await world.make(node, subdir="src")
            assert made.source_url == f"{git_host.url}/{REPO}.git#{node}:src"
            download = world.source.download_url
            assert download(git_archive(node)) == template.format(
                repo=REPO, node=node, suffix="tar.gz"
            )
            assert download(git_archive(node, suffix="tar.zst")) is None
            assert download(git_archive(node, subdir="src")) is None

    run(scenario())


def test_progress_counts_the_pack_and_then_the_archive(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node)
            sent = sum(each.sent_bytes for each in git_host.requests if each.is_fetch)
            fetched = [size for phase, size in made.phases if phase == "fetching"]
            assert 0 < max(fetched) <= sent
            assert made.phases[-1] == ("converting", len(made.data))

    run(scenario())
