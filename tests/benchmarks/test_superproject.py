"""The superproject of the benchmarks."""

from pathlib import Path

import pytest

from archiver.git_objects.lfs_pointer import parse_pointer
from benchmarks.inputs import Inputs
from benchmarks.superproject import CHANGED_FILES, PROJECT, Recipe, Superproject
from tests.parts.lfs_host import LfsService

RECIPE = Recipe(
    name="some",
    depth=1,
    submodules=3,
    folder_bytes=100_000,
    own_bytes=100_000,
    lfs_files=8,
    lfs_bytes=8_000,
    lfs_submodules=2,
    commits=3,
)


@pytest.fixture(scope="module")
def superproject(tmp_path_factory: pytest.TempPathFactory) -> Superproject:
    return Superproject(Inputs(tmp_path_factory.mktemp("cache"), quick=True), RECIPE)


def test_each_commit_moves_one_submodule(superproject: Superproject) -> None:
    project = superproject.repository(PROJECT)
    assert len(superproject.steps) == 1 + RECIPE.commits
    assert len(superproject.steps[0].main) == 1 + RECIPE.submodules
    for before, step in zip(superproject.steps, superproject.steps[1:], strict=False):
        (path,) = project.git("diff-tree", "-r", "--name-only", before.node, step.node).split()
        (repo,) = (
            repo for repo in step.main if repo != PROJECT and step.main[repo] != before.main[repo]
        )
        assert project.git("rev-parse", f"{step.node}:{path}") == step.main[repo]
        changed = superproject.repository(repo).git(
            "diff-tree", "-r", "--name-only", before.main[repo], step.main[repo]
        )
        names = changed.split("\n")
        assert names.count("lfs/0.bin") == 1
        assert 2 <= len(names) <= 1 + CHANGED_FILES


def test_the_host_has_every_lfs_file(superproject: Superproject) -> None:
    lfs = LfsService(folder=superproject.folder / ".lfs", links="")
    found = 0
    for repo, node in superproject.steps[-1].main.items():
        repository = superproject.repository(repo)
        for name in repository.git("ls-tree", "-r", "--name-only", node, "lfs/").split():
            pointer = parse_pointer(repository.git_bytes("cat-file", "blob", f"{node}:{name}"))
            assert pointer
            assert lfs.path(repo, pointer.sha256).stat().st_size == pointer.size_bytes
            found += 1
    assert found == RECIPE.lfs_files


def test_the_main_branches_are_those_of_the_commit_that_is_shown(
    superproject: Superproject,
) -> None:
    for number, step in enumerate(superproject.steps):
        assert superproject.show(number) == step.node
        for repo, node in step.main.items():
            assert superproject.repository(repo).git("rev-parse", "main") == node


def test_the_superproject_is_kept_until_its_recipe_changes(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, quick=True)
    first = Superproject(inputs, RECIPE)
    made_at = (first.folder / "made.json").stat().st_mtime_ns

    assert Superproject(inputs, RECIPE).steps == first.steps
    assert (first.folder / "made.json").stat().st_mtime_ns == made_at
