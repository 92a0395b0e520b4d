"""The status comes from the buckets first, then from the engine; with fakes."""

import asyncio

import pytest

from archiver.errors import (
    EngineUnavailable,
    StorageUnavailable,
)
from archiver.model import Archive, Region
from archiver.ports.storage import StoredState
from archiver.status import Status
from archiver.tasks import Task, TaskState
from archiver.testing import MemoryEngine, MemoryStorage
from archiver.tree_proof import everything
from archiver.web.waiting.waiters import WaitLimits, open_waiters
from tests.memory_world import World, build, lose, request

EAST, WEST = Region("us-east-1"), Region("us-west-2")


class CountingStorage(MemoryStorage):
    """``looks`` counts the searches for an archive."""

    looks = 0

    async def find(self, archive: Archive) -> StoredState:
        self.looks += 1
        await asyncio.sleep(0)
        return await super().find(archive)


def test_an_unknown_task_is_pending() -> None:
    world = World()
    status = asyncio.run(world.archiver.status(world.archive(), may_read=everything))
    assert status.task.state is TaskState.PENDING
    assert status.urls == {}
    assert world.untouched


def test_the_status_is_success_if_a_bucket_has_the_archive() -> None:
    world = World()

    async def scenario() -> TaskState:
        await world.engine.enqueue(world.archive())
        await build(world)
        return (await world.archiver.status(world.archive(), may_read=everything)).task.state

    assert asyncio.run(scenario()) is TaskState.SUCCESS


def test_the_status_is_never_success_without_an_archive() -> None:
    world = World()

    async def scenario() -> Status:
        await world.engine.enqueue(world.archive())
        attempt = world.engine.claim()
        assert attempt
        world.engine.succeed(attempt)
        return await world.archiver.status(world.archive(), may_read=everything)

    status = asyncio.run(scenario())
    assert (status.task.state, status.urls) == (TaskState.PENDING, {})


def test_the_status_of_a_lost_archive_searches_the_buckets_once() -> None:
    storage = CountingStorage()
    world = World(storage=storage)

    async def scenario() -> TaskState | None:
        archive = world.archive()
        await world.engine.enqueue(archive)
        await world.work()
        lose(world)
        await world.index.forget(archive)
        storage.looks = 0
        async with open_waiters(world.archiver, WaitLimits()) as waiters:
            with waiters.watch(archive, "192.0.2.1") as watch:
                for _ in range(1000):
                    await asyncio.sleep(0)
                return watch.status.task.state if watch.status else None

    assert asyncio.run(scenario()) is TaskState.PENDING
    assert storage.looks == 1


def test_a_status_has_a_url_per_copy_and_names_the_missing_regions() -> None:
    world = World()

    async def scenario() -> Status:
        world.storage.down.add(EAST)
        await build(world)
        return await world.archiver.status(world.archive(), may_read=everything)

    status = asyncio.run(scenario())
    assert list(status.urls) == [WEST]
    assert status.missing == (EAST,)
    assert status.urls[WEST] not in repr(status)


def test_a_task_is_reported_while_no_region_responds() -> None:
    world = World()

    async def scenario() -> tuple[Status, Status]:
        await request(world.archiver, world.wanted())
        world.storage.down.update(world.storage.regions)
        waiting = await world.archiver.status(world.archive(), may_read=everything)
        await world.work(max_failures=1)
        return waiting, await world.archiver.status(world.archive(), may_read=everything)

    waiting, failed = asyncio.run(scenario())
    assert waiting.task.state is TaskState.PENDING
    assert failed.task.error
    assert failed.task.error.code == "storage_unavailable"


def test_a_success_is_not_withdrawn_while_no_region_responds() -> None:
    world = World()

    async def scenario() -> None:
        await request(world.archiver, world.wanted())
        await world.work()
        await world.index.forget(world.archive())
        world.storage.down.update(world.storage.regions)
        with pytest.raises(StorageUnavailable):
            await world.archiver.status(world.archive(), may_read=everything)

    asyncio.run(scenario())


def test_without_engine_and_archive_there_is_no_status() -> None:
    world = World()
    world.engine.down = True
    with pytest.raises(EngineUnavailable):
        asyncio.run(world.archiver.status(world.archive(), may_read=everything))


class SilentEngine(MemoryEngine):
    """Does not respond about tasks for a long time, as when its stream has no leader."""

    async def task(self, archive: Archive) -> Task | None:
        await asyncio.sleep(60)
        return await super().task(archive)


def test_an_unresponsive_engine_does_not_delay_the_status_of_a_stored_archive() -> None:
    world = World(engine=SilentEngine())

    async def scenario() -> TaskState:
        await world.engine.enqueue(world.archive())
        await build(world)
        async with asyncio.timeout(30):
            return (await world.archiver.status(world.archive(), may_read=everything)).task.state

    assert asyncio.run(scenario()) is TaskState.SUCCESS
