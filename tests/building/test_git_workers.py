"""Faults on the worker's side: killed processes, damaged mirrors, full disks, rivals."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archiver.errors import ConversionLost, MirrorFailed, NoRoom
from archiver.model import Limits
from archiver.sources.git.listing import Listing, spool
from tests import git_repositories
from tests.git_lab import expected, litter, make_despite, mirrors_of, open_world
from tests.git_repositories import GitRepository, commit_rounds, rewrite_history
from tests.git_world import git_archive
from tests.parts.git_host import GitHost
from tests.parts.process import descendants
from tests.parts.stopping_git import StoppingGit, resume, state, until

STEP_BYTES = 64 << 20
"""Room that a fetch needs at least."""

COMMANDS = ("index-pack", "ls-tree", "cat-file", "read-tree", "check-attr", "archive")

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_git_left")]


@pytest.fixture
def repository(git_host: GitHost) -> GitRepository:
    return git_host.create()


@pytest.fixture
def git(tmp_path: Path) -> StoppingGit:
    return StoppingGit(tmp_path / "git")


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cancelled_build_leaves_nothing(
    git_host: GitHost, repository: GitRepository, tmp_path: Path, git: StoppingGit, command: str
) -> None:
    node = repository.commit(git_repositories.ATTRIBUTES)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, git) as world:
            git.stop_at(command)
            making = asyncio.create_task(world.make(node))
            stopped = await git.stopped()
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            assert state(stopped) in {"", "Z"}
            assert not litter(tmp_path)
            assert (await world.make(node)).proof

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
            assert len(git_host.fetches) == len(nodes)
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
                assert len(git_host.fetches) == 1
                resume(stopped)
            assert making.result().sha256 == right[node]
            assert (await world.make(other, repo="other/project")).proof
            assert len(mirrors_of(tmp_path)) == 1

    asyncio.run(scenario())


def test_a_host_is_not_asked_without_room(
    git_host: GitHost, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def scenario() -> None:
        async with open_world(git_host, tmp_path, max_bytes=STEP_BYTES - 1) as world:
            with pytest.raises(NoRoom):
                await world.make(node)
            assert not git_host.fetches
            assert not litter(tmp_path)

    asyncio.run(scenario())


def list_on_a_full_disk(folder: Path) -> None:
    """List a file. A limit on the size of files stands for the end of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    line = b"100644 blob %s 7\tname\0" % (b"1" * 40)
    try:
        with spool(folder) as file:
            listing = Listing(git_archive("1" * 40), file=file, limits=Limits())
            listing.add(line)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) // 2, before[1]))
            listing.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(NoRoom):
        list_on_a_full_disk(tmp_path)


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
