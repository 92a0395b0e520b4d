"""Mirrors that are damaged between builds and during builds: the next builds repair them."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.errors import MirrorFailed, WrongTree
from tests.git_lab import expected, litter, make_despite, mirrors_of, open_world
from tests.git_repositories import GitRepository, commit_rounds
from tests.parts.git_host import GitHost
from tests.parts.stopping_git import StoppingGit, resume

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_git_left")]


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


@pytest.fixture
def git(tmp_path: Path) -> StoppingGit:
    return StoppingGit(tmp_path / "git")


def packs(mirror: Path, suffix: str = ".pack") -> list[Path]:
    found = list((mirror / "objects" / "pack").glob(f"*{suffix}"))
    assert found
    return found


def truncate_packs(mirror: Path) -> None:
    for pack in packs(mirror):
        pack.chmod(0o600)
        os.truncate(pack, pack.stat().st_size // 2)


def flip_packs(mirror: Path) -> None:
    """Flip a bit in every eighth byte behind the header."""
    for pack in packs(mirror):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        for at in range(12, len(content), 8):
            content[at] ^= 1
        pack.write_bytes(content)


def flip_indexes(mirror: Path) -> None:
    for index in packs(mirror, ".idx"):
        index.chmod(0o600)
        content = bytearray(index.read_bytes())
        for at in range(1032, len(content), 3):
            content[at] ^= 4
        index.write_bytes(content)


def remove(*names: str) -> Callable[[Path], None]:
    def damage(mirror: Path) -> None:
        for name in names:
            for path in mirror.glob(name):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    return damage


def garble(name: str) -> Callable[[Path], None]:
    def damage(mirror: Path) -> None:
        path = mirror / name
        if path.exists():
            path.chmod(0o600)
        path.write_bytes(b"\0garbage" * 200)

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated packs": truncate_packs,
    "flipped packs": flip_packs,
    "flipped indexes": flip_indexes,
    "no indexes": remove("objects/pack/*.idx"),
    "no packs": remove("objects/pack/*.pack"),
    "no objects": remove("objects"),
    "no nodes": remove("nodes"),
    "no HEAD": remove("HEAD"),
    "no refs": remove("refs"),
    "no config": remove("config"),
    "no locks": remove("*.lock"),
    "nothing": remove("*"),
    "no folder": shutil.rmtree,
    "garbled HEAD": garble("HEAD"),
    "garbled config": garble("config"),
    "garbled identity": garble("mirror.json"),
    "garbled size": garble("first-size"),
    "garbled multi-pack-index": garble("objects/pack/multi-pack-index"),
    "another node": garble(f"nodes/{'1' * 40}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_mirror_is_repaired_by_the_next_builds(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, damage: str
) -> None:
    nodes = commit_rounds(repository, 2)
    right = expected(git_host, tmp_path, *nodes)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path) as world:
            for again in nodes:  # in the mirror, and not yet
                await world.make(nodes[0])
                DAMAGE[damage](mirrors_of(tmp_path)[-1])
                git_host.requests.clear()
                sha256 = await make_despite(world, again, MirrorFailed, WrongTree)
                assert sha256 == right[again]
                assert len(git_host.fetches) <= 2
            await world.mirrors.clean_up()
            assert not litter(tmp_path)
            assert len(mirrors_of(tmp_path)) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("damage", ("truncated packs", "flipped packs", "no objects", "no nodes"))
@pytest.mark.parametrize("command", ("ls-tree", "archive"))
def test_a_mirror_that_is_damaged_during_a_build_is_repaired(
    git_host: GitHost,
    repository: GitRepository,
    tmp_path: Path,
    git: StoppingGit,
    command: str,
    damage: str,
) -> None:
    (node,) = commit_rounds(repository, 1)
    right = expected(git_host, tmp_path, node)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, git) as world:
            await world.make(node)
            git.stop_at(command)
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(make_despite(world, node, MirrorFailed, WrongTree))
                stopped = await git.stopped()
                DAMAGE[damage](mirrors_of(tmp_path)[-1])
                resume(stopped)
            assert making.result() == right[node]
            assert not litter(tmp_path)

    asyncio.run(scenario())
