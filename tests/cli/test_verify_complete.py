"""``archiver verify`` says of each submodule in an archive how it is proven."""

import asyncio
from pathlib import Path

import pytest

from tests.git_world import Made, git_source_config, git_world
from tests.parts.commands import Run
from tests.parts.git_host import GitHost
from tests.parts.json_output import documents
from tests.superprojects import Superproject

PROVEN = "it has exactly the files of its commit"


async def made(superproject: Superproject, folder: Path, node: str, suffix: str) -> Made:
    async with git_world(git_source_config(superproject.host.template), folder) as world:
        return await world.make(node, submodules=True, suffix=suffix)


def written(superproject: Superproject, folder: Path, node: str, suffix: str = "tar.gz") -> str:
    path = folder / f"made.{suffix}"
    path.write_bytes(asyncio.run(made(superproject, folder, node, suffix)).data)
    return str(path)


@pytest.mark.parametrize("suffix", ("tar.zst", "zip"))
def test_each_part_has_its_own_verdict(
    run: Run, git_host: GitHost, tmp_path: Path, suffix: str
) -> None:
    superproject = Superproject(git_host)
    node = superproject.node
    path = written(superproject, tmp_path, node, suffix)
    result = run("verify", path, "--node", node)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"proven: submodule libs/one, commit {superproject.one_node}: {PROVEN}",
        f"proven: submodule libs/one/deep/two, commit {superproject.two_node}: {PROVEN}",
        f"proven: {path} has exactly the files of commit {node}",
    ]
    assert run("verify", path, "--node", node, "--quiet").stdout == ""
    (document,) = documents(run("verify", path, "--node", node, "--json").stdout)
    assert [part["path"] for part in document["parts"]] == ["libs/one", "libs/one/deep/two"]
    assert {part["verdict"] for part in document["parts"]} == {"proven"}
    assert document["lfs_files"] == 0


def test_attributes_of_a_submodule_make_only_that_unprovable(
    run: Run, git_host: GitHost, tmp_path: Path
) -> None:
    superproject = Superproject(git_host)
    ignoring = {".gitattributes": b"hidden export-ignore\n", "hidden": b"", "shown": b""}
    two = superproject.two.commit(ignoring)
    urls = {"one": ("../one", superproject.one_node), "two": ("../two", two)}
    node = superproject.commit(urls=urls)
    result = run("verify", written(superproject, tmp_path, node), "--node", node)
    assert result.exit_code == 3
    verdicts = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert verdicts == ["proven", "proven", "unprovable"]
    assert "the submodule two:" in result.stderr
    assert ".gitattributes" in result.stderr


def test_another_node_has_no_parts(run: Run, git_host: GitHost, tmp_path: Path) -> None:
    superproject = Superproject(git_host)
    path = written(superproject, tmp_path, superproject.node)
    result = run("verify", path, "--node", superproject.one_node)
    assert result.exit_code == 5
    assert result.stdout == ""
