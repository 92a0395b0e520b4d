"""A mirror takes packs, whole or not at all, and makes archives from them."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from archiver.errors import ArchiveTooLarge, BadPack, MirrorFailed, NoRoom, SourceTimeout
from archiver.model import Node
from archiver.sources.config import Attributes
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.program import GitFailed
from tests import git_repositories
from tests.git_repositories import ATTRIBUTES, SIMPLE, GitRepository, commit_rounds
from tests.parts.process import descendants
from tests.sources.git_packs import (
    MAX_BYTES,
    add,
    archive,
    delta_bomb,
    new_mirrors,
    pack_of,
    pieces,
)


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return git_repositories.create(tmp_path / "origin.git")


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return new_mirrors(tmp_path / "mirrors")


def indexers() -> list[int]:
    """Return the running processes of this one that receive packs."""
    return [pid for pid, name in descendants(os.getpid()).items() if "index-pack --stdin" in name]


def packs(mirror: Mirror) -> list[str]:
    return sorted(path.name for path in (mirror.store.objects / "pack").iterdir())


def test_a_received_node_is_there_and_can_be_archived(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)

    async def play() -> bytes:
        async with mirrors.use("src", "a/b", 40) as mirror:
            assert not await mirror.has(Node(node))
            assert await mirror.haves() == ()
            await add(mirror, pack_of(repository, node))
            assert await mirror.has(Node(node))
            return await archive(mirror, node)

    assert asyncio.run(play()) == repository.git_bytes("-c", "tar.umask=002", "archive", node)


def test_a_pack_may_be_thin_on_top_of_remembered_nodes(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    first, second = commit_rounds(repository, 2)

    async def play() -> bytes:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, first), first)
        async with mirrors.use("src", "a/b", 40) as mirror:
            haves = await mirror.haves()
            assert haves == (first,)
            thin = pack_of(repository, second, haves)
            assert len(thin) < len(pack_of(repository, second))
            await add(mirror, thin, second)
            assert await mirror.haves() == (second, first)
            return await archive(mirror, second)

    assert asyncio.run(play()) == repository.git_bytes("-c", "tar.umask=002", "archive", second)


def test_a_thin_pack_cannot_be_received_without_its_bases(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    first, second = commit_rounds(repository, 2)

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, second, [first]))

    with pytest.raises(BadPack):
        asyncio.run(play())


def test_a_sha256_repository_has_a_mirror_of_its_format(mirrors: Mirrors, tmp_path: Path) -> None:
    repository = git_repositories.create(tmp_path / "sha256.git", object_format="sha256")
    first, second = commit_rounds(repository, 2)

    async def play() -> bytes:
        async with mirrors.use("src", "a/b", 64) as mirror:
            await add(mirror, pack_of(repository, first), first)
            await add(mirror, pack_of(repository, second, await mirror.haves()), second)
            return await archive(mirror, second)

    assert asyncio.run(play()) == repository.git_bytes("-c", "tar.umask=002", "archive", second)


@pytest.mark.parametrize("attributes", Attributes)
def test_attributes_are_honoured_or_ignored(
    mirrors: Mirrors, repository: GitRepository, attributes: Attributes
) -> None:
    node = repository.commit(ATTRIBUTES)

    async def play() -> bytes:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, node))
            return await mirror.git_for(attributes).run("archive", "--format=tar", node)

    archived = asyncio.run(play())
    ignored = attributes is Attributes.IGNORE
    assert (b"secret/key" in archived) is ignored
    assert archived.count(b"$Format:%H$") == 1 + ignored
    assert (b"echo one\necho two" in archived) is ignored
    assert (b"/* $Id$ */" in archived) is ignored


def test_only_the_last_eight_nodes_are_offered(mirrors: Mirrors, repository: GitRepository) -> None:
    nodes = commit_rounds(repository, 10)

    async def play() -> tuple[Node, ...]:
        async with mirrors.use("src", "a/b", 40) as mirror:
            for node in nodes:
                await add(mirror, pack_of(repository, node), node)
            mirror.remember(Node(nodes[4]))
            return await mirror.haves()

    assert [*asyncio.run(play())] == [nodes[4], *reversed(nodes[5:]), nodes[3], nodes[2]]


def test_a_node_that_is_gone_is_not_offered(mirrors: Mirrors, repository: GitRepository) -> None:
    first, second = commit_rounds(repository, 2)

    async def play() -> tuple[Node, ...]:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, first), first)
            mirror.remember(Node(second))
            return await mirror.haves()

    assert asyncio.run(play()) == (first,)


@pytest.mark.parametrize("damage", ("empty", "text", "cut", "flipped"))
def test_a_damaged_pack_is_rejected_and_leaves_nothing(
    mirrors: Mirrors, repository: GitRepository, damage: str
) -> None:
    node = repository.commit(SIMPLE)
    pack = pack_of(repository, node)
    middle = len(pack) // 2
    damaged = {
        "empty": b"",
        "text": b"<html>" * 1000,
        "cut": pack[:middle],
        "flipped": pack[:middle] + bytes([pack[middle] ^ 1]) + pack[middle + 1 :],
    }[damage]

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            with pytest.raises(BadPack):
                await add(mirror, damaged)
            assert not await mirror.has(Node(node))
            assert packs(mirror) == []

    asyncio.run(play())


def test_a_pack_that_is_too_large_is_refused(mirrors: Mirrors, repository: GitRepository) -> None:
    node = repository.commit({"noise": os.urandom(1_000_000)})

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror, mirror.fetch_lock():
            await mirror.receive(pieces(pack_of(repository, node)), max_bytes=500_000)

    with pytest.raises(ArchiveTooLarge, match="500000 bytes"):
        asyncio.run(play())


def test_a_small_pack_of_a_huge_object_is_refused(mirrors: Mirrors) -> None:
    bomb = delta_bomb(3 << 30)
    assert len(bomb) < 200

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, bomb)

    with pytest.raises(ArchiveTooLarge, match="memory"):
        asyncio.run(play())


def test_a_failing_host_ends_the_process_and_leaves_nothing(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    pack = pack_of(repository, repository.commit({"noise": os.urandom(1_000_000)}))

    async def broken() -> AsyncGenerator[bytes, None]:
        yield pack[:600_000]
        raise SourceTimeout("silent")

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            with pytest.raises(SourceTimeout):
                async with mirror.fetch_lock():
                    await mirror.receive(broken(), max_bytes=MAX_BYTES)
            assert indexers() == []
            assert packs(mirror) == []
        async with mirrors.use("src", "a/b", 40) as later:
            assert later.store == mirror.store, "the mirror is not to blame"

    asyncio.run(play())


def test_a_killed_index_pack_is_a_failure_of_the_mirror(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit({"noise": os.urandom(1_000_000)})
    pack = pack_of(repository, node)

    async def killing() -> AsyncGenerator[bytes, None]:
        yield pack[:600_000]
        while not (running := indexers()):  # it may not have begun yet
            await asyncio.sleep(0.01)
        (process,) = running
        os.kill(process, signal.SIGKILL)
        yield pack[600_000:]

    async def play() -> None:
        with pytest.raises(MirrorFailed):
            async with mirrors.use("src", "a/b", 40) as mirror, mirror.fetch_lock():
                await mirror.receive(killing(), max_bytes=MAX_BYTES)
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack)
            assert await mirror.has(Node(node))

    asyncio.run(play())


def test_room_is_made_before_a_pack_is_written(tmp_path: Path, repository: GitRepository) -> None:
    mirrors = new_mirrors(tmp_path / "mirrors", max_bytes=1 << 20)

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, repository.commit(SIMPLE)))

    with pytest.raises(NoRoom, match=r"worker\.mirror_max_bytes"):
        asyncio.run(play())


@pytest.mark.parametrize("reason", (errno.EMFILE, errno.EAGAIN))
def test_a_process_that_may_not_start_git_has_no_damaged_mirror(
    mirrors: Mirrors, reason: int
) -> None:
    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            failure = GitFailed("git was not started")
            failure.__cause__ = OSError(reason, "")
            translated = mirror.translate(failure)
            assert isinstance(translated, NoRoom)
            assert not translated.of_disk
            assert not mirror.suspect

    asyncio.run(play())


def test_a_full_disk_is_no_damage(mirrors: Mirrors) -> None:
    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            full = GitFailed("git", status=128, stderr="write error: No space left on device")
            assert isinstance(mirror.translate(full), NoRoom)
            assert not mirror.suspect
            assert isinstance(mirror.translate(GitFailed("git", status=128)), MirrorFailed)
            assert mirror.suspect

    asyncio.run(play())


def test_fetches_wait_for_each_other(mirrors: Mirrors) -> None:
    order: list[str] = []

    async def fetch(name: str, ready: asyncio.Event, leave: asyncio.Event) -> None:
        async with mirrors.use("src", "a/b", 40) as mirror, mirror.fetch_lock():
            order.append(f"{name} in")
            ready.set()
            await leave.wait()
            order.append(f"{name} out")

    async def play() -> None:
        ready, leave = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch("first", ready, leave))
            await ready.wait()
            second = group.create_task(fetch("second", asyncio.Event(), leave))
            cancelled = group.create_task(fetch("third", asyncio.Event(), leave))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait({cancelled})
            assert order == ["first in"]
            assert not second.done()
            leave.set()

    asyncio.run(play())
    assert order == ["first in", "first out", "second in", "second out"]


def test_an_abandoned_pack_is_removed_before_the_next_fetch(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, node))
            whole = packs(mirror)
            folder = mirror.store.objects / "pack"
            for name in ("tmp_pack_x", "tmp_idx_x", "pack-1.pack", ".tmp-1-pack-2.pack", "x.lock"):
                (folder / name).write_bytes(b"litter")
            (mirror.store.objects / "tmp_obj_x").touch()
            async with mirror.fetch_lock():
                assert packs(mirror) == whole
            assert not (mirror.store.objects / "tmp_obj_x").exists()
            assert await mirror.has(Node(node))

    asyncio.run(play())
