"""The git repository of the benchmarks, and its host."""

from pathlib import Path

import pytest

from benchmarks.git_repository import CHANGED_FILES, GitRepository, Recipe
from benchmarks.git_serving import serving
from benchmarks.inputs import Inputs
from tests.parts.process import wait_until
from tests.system.client import fetch

RECIPE = Recipe(name="some", tree_bytes=500_000, commits=3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("cache"), quick=True)


def test_each_commit_changes_a_few_files(inputs: Inputs) -> None:
    repository = GitRepository(inputs, RECIPE)

    assert len(repository.nodes) == 1 + RECIPE.commits
    for before, node in zip(repository.nodes, repository.nodes[1:], strict=False):
        changed = repository.git("diff-tree", "-r", "--name-only", before, node).split()
        assert 1 <= len(changed) <= CHANGED_FILES
    assert repository.size_bytes <= RECIPE.tree_bytes
    assert repository.git("ls-tree", "-d", repository.nodes[0], repository.subdir)


@pytest.mark.thorough
def test_a_repository_is_kept_until_its_recipe_changes(inputs: Inputs) -> None:
    nodes = GitRepository(inputs, RECIPE).nodes
    made_at = (inputs.folder / "git" / "some.git" / "recipe.json").stat().st_mtime_ns

    assert GitRepository(inputs, RECIPE).nodes == nodes
    assert (inputs.folder / "git" / "some.git" / "recipe.json").stat().st_mtime_ns == made_at

    more = Recipe(name="some", tree_bytes=500_000, commits=5)
    assert len(GitRepository(inputs, more).nodes) == 1 + more.commits


@pytest.mark.programs
def test_the_host_serves_refs_and_its_own_archives_and_counts_bytes(
    inputs: Inputs, tmp_path: Path
) -> None:
    repository = GitRepository(inputs, RECIPE)
    with serving(repository, tmp_path) as host:
        refs = fetch(
            f"{host.template.format(repo=host.new_repo())}/info/refs?service=git-upload-pack",
            headers={"Git-Protocol": "version=2"},
        )
        archive = fetch(host.snapshot(repository.nodes[0]))
        wait_until(lambda: host.transferred("/cgit/") > 0)

        assert b"version 2" in refs.body
        assert archive.body.startswith(b"\x1f\x8b")
        assert host.transferred("/cgit/") > len(archive.body)
        assert host.transferred("/git/") > len(refs.body)
