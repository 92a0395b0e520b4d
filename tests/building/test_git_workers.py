"""Faults on the worker's side: killed processes, damaged mirrors, full disks, rivals."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, ConversionLost, MirrorFailed, NoRoom, WrongTree
from tests import git_repositories
from tests.git_repositories import GitRepository, commit_rounds, rewrite_history
from tests.git_world import GitWorld, git_source_config, git_world
from tests.parts.git_host import GitHost
from tests.parts.process import descendants
from tests.parts.stopping_git import StoppingGit, resume, state, until

STEP_BYTES = 64 << 20
"""Room that a fetch needs at least."""

COMMANDS = ("index-pack", "ls-tree", "cat-file", "read-tree", "check-attr", "archive")

pytestmark = pytest.mark.usefixtures("no_git_left")


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


@pytest.fixture
def git(tmp_path: Path) -> StoppingGit:
    return StoppingGit(tmp_path / "git")


def open_world(
    host: GitHost, folder: Path, git: StoppingGit | None = None, max_bytes: int = 1 << 30
) -> AbstractAsyncContextManager[GitWorld]:
    config = git_source_config(host.template)
    program = git.program if git else None
    return git_world(config, folder, mirror_max_bytes=max_bytes, git=program)


def expected(host: GitHost, folder: Path, *nodes: str) -> dict[str, str]:
    """Return the SHA-256 of each archive, made in a folder of its own without any fault."""

    async def scenario() -> dict[str, str]:
        async with open_world(host, folder / "reference") as world:
            found = {node: (await world.make(node)).sha256 for node in nodes}
        host.requests.clear()
        return found

    return asyncio.run(scenario())


async def make_despite(world: GitWorld, node: str, *allowed: type[ArchiverError]) -> str:
    """Return the SHA-256 of an archive, of which the first try may fail with an error to retry."""
    assert all(error.retryable for error in allowed)
    with suppress(*allowed):
        return (await world.make(node)).sha256
    return (await world.make(node)).sha256


def litter(folder: Path) -> list[str]:
    """Return the temporary files in a worker's folder."""
    mirrors = folder / "mirrors"
    found = [*(mirrors / "new").iterdir(), *(mirrors / "trash").iterdir()]
    found += [path for path in mirrors.rglob("tmp_*") if path not in found]
    found += [path for path in (folder / "work").rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in found]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_warm", (False, True))
def test_a_killed_git_fails_at_most_one_try(
    git_host: GitHost,
    repository: GitRepository,
    tmp_path: Path,
    git: StoppingGit,
    command: str,
    *,
    is_warm: bool,
) -> None:
    before = repository.commit(git_repositories.SIMPLE)
    node = repository.commit(git_repositories.ATTRIBUTES)
    right = expected(git_host, tmp_path, node)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, git) as world:
            if is_warm:
                await world.make(before)
            git.stop_at(command)
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(make_despite(world, node, MirrorFailed))
                os.kill(await git.stopped(), signal.SIGKILL)
            assert making.result() == right[node]
            assert len(git_host.fetches) <= 3
            assert not litter(tmp_path)

    asyncio.run(scenario())


def test_a_killed_conversion_fails_one_try(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, git: StoppingGit
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    right = expected(git_host, tmp_path, node)

    def conversions() -> list[int]:
        found = descendants(os.getpid()).items()
        return [pid for pid, command in found if "archiver.formats.conversion" in command]

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, git) as world:
            git.stop_at("archive")
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(make_despite(world, node, ConversionLost))
                stopped = await git.stopped()
                await until(lambda: bool(conversions()))
                for pid in conversions():
                    os.kill(pid, signal.SIGKILL)
                resume(stopped)
            assert making.result() == right[node]
            assert len(git_host.fetches) == 1
            assert not litter(tmp_path)

    asyncio.run(scenario())


@contextmanager
def worker(
    host: GitHost, folder: Path, git: StoppingGit, *nodes: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker process that makes archives of *nodes*. Kill it after the block."""
    command = [sys.executable, "-m", "tests.git_worker", host.template, str(folder), str(git.path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen([*command, *nodes], stdout=subprocess.PIPE, cwd=root) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("command", ("index-pack", "ls-tree", "check-attr", "archive"))
def test_the_next_worker_goes_on_after_a_killed_one(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, git: StoppingGit, command: str
) -> None:
    before = repository.commit(git_repositories.SIMPLE)
    node = repository.commit(git_repositories.ATTRIBUTES)
    right = expected(git_host, tmp_path, node)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path) as world:
            await world.make(before)
        git.stop_at(command)
        with worker(git_host, tmp_path, git, node) as process:
            stopped = await git.stopped()
            family = [process.pid, *descendants(process.pid)]
            process.kill()
            resume(stopped)
            await until(lambda: all(state(pid) in {"", "Z"} for pid in family))
        async with open_world(git_host, tmp_path) as world:
            assert (await world.make(node)).sha256 == right[node]
            for abandoned in (tmp_path / "mirrors" / "new").iterdir():
                os.utime(abandoned, (0, 0))
            await world.mirrors.clean_up()
            assert not litter(tmp_path)

    asyncio.run(scenario())


@pytest.mark.thorough
def test_workers_that_share_a_mirror_make_different_commits_at_once(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, git: StoppingGit
) -> None:
    nodes = commit_rounds(repository, 4)
    right = expected(git_host, tmp_path, *nodes)
    with (
        worker(git_host, tmp_path, git, *nodes) as first,
        worker(git_host, tmp_path, git, *reversed(nodes)) as second,
    ):
        outputs = [process.communicate()[0].decode() for process in (first, second)]
    for output in outputs:
        assert dict(line.split() for line in output.splitlines()) == right
    assert len(git_host.fetches) <= len(nodes)
    assert not litter(tmp_path)


# Damage.


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


def mirrors_of(folder: Path) -> list[Path]:
    """Return the mirrors in a worker's folder, the one in use last."""
    return sorted((folder / "mirrors" / "stores").glob("*/*"), key=lambda path: int(path.name))


@pytest.mark.thorough
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


@pytest.mark.thorough
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


# Room.


def test_a_mirror_that_fills_its_room_makes_room_for_its_own_next_commit(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    nodes = commit_rounds(repository, 3)
    right = expected(git_host, tmp_path, *nodes)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, max_bytes=STEP_BYTES + 100) as world:
            for node in nodes:
                assert (await world.make(node)).sha256 == right[node]
            assert len(git_host.fetches) <= 2 * len(nodes)
            assert len(mirrors_of(tmp_path)) == 1

    asyncio.run(scenario())


def test_a_mirror_in_use_is_not_evicted_and_an_idle_one_is(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, git: StoppingGit
) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    other = git_host.create("other/project").commit(git_repositories.MODES)
    right = expected(git_host, tmp_path, node)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, git, max_bytes=STEP_BYTES + 100) as world:
            git.stop_at("archive")
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(world.make(node))
                stopped = await git.stopped()
                with pytest.raises(NoRoom):
                    await world.make(other, repo="other/project")
                resume(stopped)
            assert making.result().sha256 == right[node]
            assert (await world.make(other, repo="other/project")).proof
            assert len(mirrors_of(tmp_path)) == 1

    asyncio.run(scenario())


def test_a_repository_larger_than_the_room_is_no_room(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, max_bytes=STEP_BYTES - 1) as world:
            with pytest.raises(NoRoom):
                await world.make(node)
            assert len(git_host.fetches) == 1
            assert not litter(tmp_path)

    asyncio.run(scenario())


# Histories.


def test_a_branch_that_moves_or_is_rewritten_leads_to_its_new_commit(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    first = repository.commit(git_repositories.SIMPLE)
    moved = repository.commit(git_repositories.MODES)
    rewritten = rewrite_history(repository, git_repositories.CASES)
    right = expected(git_host, tmp_path, first, moved, rewritten)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path) as world:
            for node in (first, moved, rewritten):
                repository.branch("main", node)
                assert await world.source.resolve("group/project", "main") == node
                assert (await world.make(node)).sha256 == right[node]
            repository.git("reflog", "expire", "--expire=now", "--all")
            repository.git("gc", "--quiet", "--prune=now")
            assert (await world.make(first)).sha256 == right[first]  # the mirror has it

    asyncio.run(scenario())
