"""Archives with the files of Git LFS in place of their pointers, also inside submodules."""

import asyncio
import shutil
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from archiver.errors import (
    ArchiveTooLarge,
    BadLfsFile,
    LfsFileMissing,
    LfsRefused,
    SubmoduleMissing,
)
from archiver.formats.commit_proof import CommitProof, prove_commit
from archiver.formats.record_check import Verdict
from archiver.model import SUFFIXES, Limits, Node
from archiver.tree_proof import LfsFile, TreeMatch
from tests.git_repositories import Files, GitRepository, executable
from tests.git_world import Made, contents, git_source_config, git_world
from tests.parts.git_host import REPO, GitHost
from tests.parts.thorough import thorough
from tests.superprojects import with_submodules

T = TypeVar("T")

ATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\nomitted.bin export-ignore\n"
LARGE = bytes(range(256)) * 10_000
SMALL = b"small\n"


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


def files_of(made: Made) -> Mapping[str, tuple[bytes, int, bytes]]:
    return {name.partition("/")[2]: each for name, each in contents(made.tar()).items()}


class LfsProject:
    """A repository with three LFS files, two pointers that are none, and one that is left out."""

    def __init__(self, host: GitHost, repo: str = REPO) -> None:
        self.host = host
        self.repo = repo
        self.repository: GitRepository = host.create(repo)
        self.large = host.lfs.add(repo, LARGE)
        self.small = host.lfs.add(repo, SMALL)
        self.files: Files = {
            ".gitattributes": ATTRIBUTES,
            "a.bin": self.large.text,
            "b/run.bin": executable(self.small.text),
            "b/same.bin": self.small.text,
            "b/unusual.bin": self.small.text.replace(b"\nsize", b"\n\nsize"),
            "c.txt": self.small.text,
            "d.bin": b"a file that was never in LFS\n",
            "omitted.bin": self.small.text.replace(b"size 6", b"size 7"),
            "z": b"last\n",
        }
        self.node = self.repository.commit(self.files)

    @property
    def expected(self) -> Mapping[str, bytes]:
        """What a checkout with LFS has, without the file that attributes leave out."""
        replaced = {
            "a.bin": LARGE,
            **dict.fromkeys(("b/run.bin", "b/same.bin", "b/unusual.bin"), SMALL),
        }
        found = {}
        for path, entry in self.files.items():
            if path != "omitted.bin":
                content = entry if isinstance(entry, bytes) else entry.content
                found[path] = replaced.get(path, content)
        return found


@pytest.fixture
def project(git_host: GitHost) -> LfsProject:
    return LfsProject(git_host)


async def make(
    project: LfsProject,
    folder: Path,
    node: str = "",
    *,
    suffix: str = "tar.gz",
    subdir: str = "",
    submodules: bool = False,
) -> Made:
    async with git_world(git_source_config(project.host.template), folder) as world:
        return await world.make(
            node or project.node,
            repo=project.repo,
            suffix=suffix,
            subdir=subdir,
            lfs=True,
            submodules=submodules,
        )


async def prove(made: Made, folder: Path, node: str, suffix: str, subdir: str = "") -> CommitProof:
    path = folder / f"made.{suffix}"
    path.write_bytes(made.data)
    return await prove_commit(path, node=Node(node), subdir=subdir)


def test_pointers_are_replaced_by_their_files(project: LfsProject, tmp_path: Path) -> None:
    made = run(make(project, tmp_path))
    found = files_of(made)
    assert {path: content for path, (_, _, content) in found.items()} == project.expected
    assert found["b/run.bin"][1]
    assert not found["b/same.bin"][1]


def test_the_proof_lists_them_and_the_tree_has_their_pointers(
    project: LfsProject, tmp_path: Path
) -> None:
    kept = {path: each for path, each in project.files.items() if path != "omitted.bin"}
    node = project.repository.commit({**kept, ".gitattributes": ATTRIBUTES.splitlines()[0]})
    proof = run(make(project, tmp_path, node)).proof
    assert proof
    assert proof.match is TreeMatch.EXACT
    assert proof.tree == project.repository.git("rev-parse", f"{node}^{{tree}}")
    assert proof.lfs_files == 4
    assert proof.lfs[0] == LfsFile(path="a.bin", sha256=project.large.sha256, size_bytes=len(LARGE))
    assert [file.path for file in proof.lfs] == [
        *("a.bin", "b/run.bin", "b/same.bin", "b/unusual.bin")
    ]


@pytest.mark.parametrize(
    "suffix", ("tar.zst", "zip", *thorough(*sorted(set(SUFFIXES) - {"tar.zst", "zip"})))
)
def test_every_suffix_proves_itself_offline(
    project: LfsProject, tmp_path: Path, suffix: str
) -> None:
    kept = {path: each for path, each in project.files.items() if path != "omitted.bin"}
    node = project.repository.commit(kept)

    async def scenario() -> None:
        made = await make(project, tmp_path, node, suffix=suffix)
        proof = await prove(made, tmp_path, node, suffix)
        assert (proof.verdict, proof.lfs_files) == (Verdict.PROVEN, 4)

    run(scenario())


@pytest.mark.parametrize(("subdir", "files"), (("b", 3), ("b/same.bin", 1)))
def test_a_subdir_has_its_files(
    project: LfsProject, tmp_path: Path, subdir: str, files: int
) -> None:
    async def scenario() -> None:
        made = await make(project, tmp_path, subdir=subdir)
        expected = {
            path: content
            for path, content in project.expected.items()
            if path == subdir or path.startswith(f"{subdir}/")
        }
        assert {path: each[2] for path, each in files_of(made).items()} == expected
        proof = await prove(made, tmp_path, project.node, "tar.gz", subdir)
        assert proof.verdict is Verdict.PROVEN
        assert proof.lfs_files == files

    run(scenario())


def test_each_file_is_downloaded_once_for_all_commits(project: LfsProject, tmp_path: Path) -> None:
    async def scenario() -> None:
        host = project.host
        later = project.repository.commit({**project.files, "z": b"changed\n"})
        async with git_world(git_source_config(host.template), tmp_path) as world:
            await world.make(project.node, lfs=True)
            assert len(host.lfs.downloads) == 2
            host.lfs.requests.clear()
            await world.make(project.node, lfs=True, suffix="zip")
            await world.make(later, lfs=True)
        assert not host.lfs.requests

    run(scenario())


def test_without_lfs_pointers_stay(project: LfsProject, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with git_world(git_source_config(project.host.template), tmp_path) as world:
            made = await world.make(project.node, submodules=True)
        assert files_of(made)["a.bin"][2] == project.large.text
        assert not project.host.lfs.requests

    run(scenario())


def test_a_file_that_the_host_does_not_have_is_named(project: LfsProject, tmp_path: Path) -> None:
    project.host.lfs.path(REPO, project.small.sha256).unlink()
    with pytest.raises(LfsFileMissing, match=r"run\.bin") as raised:
        run(make(project, tmp_path))
    assert project.small.sha256 in raised.value.message
    assert not project.host.lfs.downloads


def test_a_host_without_lfs_is_refused(project: LfsProject, tmp_path: Path) -> None:
    project.host.lfs.refusal = None
    shutil.rmtree(project.host.lfs.folder)
    with pytest.raises((LfsRefused, LfsFileMissing)):
        run(make(project, tmp_path))


def test_other_bytes_never_get_into_an_archive(project: LfsProject, tmp_path: Path) -> None:
    path = project.host.lfs.path(REPO, project.large.sha256)
    path.write_bytes(LARGE[:-1] + b"x")
    with pytest.raises(BadLfsFile):
        run(make(project, tmp_path))
    path.write_bytes(LARGE)
    assert files_of(run(make(project, tmp_path)))["a.bin"][2] == LARGE


def test_a_cached_file_that_is_damaged_or_deleted_is_fetched_again(
    project: LfsProject, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with git_world(git_source_config(project.host.template), tmp_path) as world:
            first = await world.make(project.node, lfs=True)
            large = [
                path
                for path in (tmp_path / "lfs").rglob("*")
                if path.is_file() and path.stat().st_size == len(LARGE)
            ]
            assert len(large) == 1
            large[0].write_bytes(b"x" * len(LARGE))
            with pytest.raises(BadLfsFile):
                await world.make(project.node, lfs=True)
            assert (await world.make(project.node, lfs=True)).data == first.data
            shutil.rmtree(tmp_path / "lfs")
            assert (await world.make(project.node, lfs=True)).data == first.data

    run(scenario())


def test_sizes_count_before_anything_is_downloaded(project: LfsProject, tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = Limits(unpacked_bytes=len(LARGE))
        config = git_source_config(project.host.template, limits=limits)
        async with git_world(config, tmp_path) as world:
            with pytest.raises(ArchiveTooLarge):
                await world.make(project.node, lfs=True)
        async with git_world(
            git_source_config(project.host.template), tmp_path, lfs_max_bytes=len(LARGE)
        ) as world:
            with pytest.raises(ArchiveTooLarge, match=r"worker\.lfs_max_bytes"):
                await world.make(project.node, lfs=True)
        assert not project.host.lfs.requests

    run(scenario())


def test_submodules_have_their_own_lfs_files(git_host: GitHost, tmp_path: Path) -> None:
    """The same file in two repositories is fetched from each: neither may vouch for the other."""
    inner = LfsProject(git_host, "group/inner")
    outer = LfsProject(git_host)
    files = with_submodules(outer.files, {"lib": ("../inner", inner.node)})
    node = outer.repository.commit(files)

    async def scenario() -> None:
        made = await make(outer, tmp_path, node, submodules=True)
        found = {path: content for path, (_, _, content) in files_of(made).items()}
        assert found.pop(".gitmodules")
        expected = dict(outer.expected) | {
            f"lib/{path}": content for path, content in inner.expected.items()
        }
        assert found == expected
        assert made.proof
        assert made.proof.lfs_files == 8
        assert made.proof.lfs[-1].path == "lib/b/unusual.bin"
        downloads = [request.target.partition(".git")[0] for request in git_host.lfs.downloads]
        assert sorted(downloads) == ["/group/inner"] * 2 + [f"/{REPO}"] * 2
        git_host.lfs.requests.clear()
        subdir = await make(outer, tmp_path / "x", node, submodules=True, subdir="lib/b")
        assert set(files_of(subdir)) == {f"lib/b/{name}.bin" for name in ("run", "same", "unusual")}
        proof = await prove(subdir, tmp_path, node, "tar.gz", "lib/b")
        assert proof.verdict is Verdict.PROVEN
        assert proof.parts[0].lfs_files == 3

    run(scenario())


def test_a_missing_file_of_a_submodule_has_its_origin(git_host: GitHost, tmp_path: Path) -> None:
    inner = LfsProject(git_host, "group/inner")
    outer = LfsProject(git_host)
    node = outer.repository.commit(with_submodules(outer.files, {"lib": ("../inner", inner.node)}))
    git_host.lfs.path("group/inner", inner.large.sha256).unlink()
    with pytest.raises(LfsFileMissing) as raised:
        run(make(outer, tmp_path, node, submodules=True))
    assert [origin.repo for origin in raised.value.origins] == ["group/inner"]
    missing = outer.repository.commit(with_submodules({}, {"lib": ("../inner", "1" * 40)}))
    with pytest.raises(SubmoduleMissing):
        run(make(outer, tmp_path, missing, submodules=True))


def test_the_bytes_do_not_depend_on_what_was_cached(project: LfsProject, tmp_path: Path) -> None:
    first = run(make(project, tmp_path / "a"))
    second = run(make(project, tmp_path / "b"))
    again = run(make(project, tmp_path / "a"))
    assert first.data == second.data == again.data
