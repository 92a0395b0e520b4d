"""What a status says: what the buckets do, and else the engine. In a world of fakes."""

import asyncio

import pytest

from archiver.errors import (
    EngineUnavailable,
    StorageUnavailable,
)
from archiver.model import Archive, Region
from archiver.ports.storage import StoredState
from archiver.service import Status
from archiver.tasks import Task, TaskState
from archiver.testing import MemoryEngine, MemoryStorage
from archiver.web.watches import open_watches
from tests.world import World, build, lose, request

EAST, WEST = Region("us-east-1"), Region("us-west-2")


class CountingStorage(MemoryStorage):
    """``looks`` counts the questions whether an archive is there."""

    looks = 0

    async def find(self, archive: Archive) -> StoredState:
        self.looks += 1
        await asyncio.sleep(0)
        return await super().find(archive)


def test_the_status_of_a_task_that_nobody_knows_is_pending() -> None:
    world = World()
    status = asyncio.run(world.archiver.status(world.archive()))
    assert status.task.state is TaskState.PENDING
    assert status.urls == {}
    assert world.untouched


def test_a_status_is_success_if_the_buckets_say_so_whatever_the_engine_says() -> None:
    world = World()

    async def scenario() -> TaskState:
        await world.engine.enqueue(world.archive())
        await build(world)
        return (await world.archiver.status(world.archive())).task.state

    assert asyncio.run(scenario()) is TaskState.SUCCESS


def test_a_status_is_no_success_without_an_archive_whatever_the_engine_says() -> None:
    world = World()

    async def scenario() -> Status:
        await world.engine.enqueue(world.archive())
        attempt = world.engine.claim()
        assert attempt
        world.engine.succeed(attempt)
        return await world.archiver.status(world.archive())

    status = asyncio.run(scenario())
    assert (status.task.state, status.urls) == (TaskState.PENDING, {})


def test_who_watches_an_archive_that_was_built_and_lost_has_it_looked_for_once() -> None:
    storage = CountingStorage()
    world = World(storage=storage)

    async def scenario() -> TaskState | None:
        archive = world.archive()
        await world.engine.enqueue(archive)
        await world.engine.work(world.archiver)
        lose(world)
        await world.index.forget(archive)
        storage.looks = 0
        async with open_watches(world.archiver) as watches:
            with watches.watch(archive) as watch:
                for _ in range(1000):
                    await asyncio.sleep(0)
                return watch.status.task.state if watch.status else None

    assert asyncio.run(scenario()) is TaskState.PENDING
    assert storage.looks == 1


def test_a_status_has_a_link_for_each_copy_and_names_the_regions_without() -> None:
    world = World()

    async def scenario() -> Status:
        world.storage.down.add(EAST)
        await build(world)
        return await world.archiver.status(world.archive())

    status = asyncio.run(scenario())
    assert list(status.urls) == [WEST]
    assert status.missing == (EAST,)
    assert status.urls[WEST] not in repr(status)


def test_a_task_is_seen_while_no_region_answers() -> None:
    world = World()

    async def scenario() -> tuple[Status, Status]:
        await request(world.archiver, world.wanted())
        world.storage.down.update(world.storage.regions)
        waiting = await world.archiver.status(world.archive())
        await world.engine.work(world.archiver, max_failures=1)
        return waiting, await world.archiver.status(world.archive())

    waiting, failed = asyncio.run(scenario())
    assert waiting.task.state is TaskState.PENDING
    assert failed.task.error
    assert failed.task.error.code == "storage_unavailable"


def test_a_success_is_not_taken_back_while_no_region_answers() -> None:
    world = World()

    async def scenario() -> None:
        await request(world.archiver, world.wanted())
        await world.engine.work(world.archiver)
        await world.index.forget(world.archive())
        world.storage.down.update(world.storage.regions)
        with pytest.raises(StorageUnavailable):
            await world.archiver.status(world.archive())

    asyncio.run(scenario())


def test_a_status_that_only_the_engine_could_tell_is_not_made_up() -> None:
    world = World()
    world.engine.down = True
    with pytest.raises(EngineUnavailable):
        asyncio.run(world.archiver.status(world.archive()))


class SilentEngine(MemoryEngine):
    """Says nothing of any task for a long time, as while its stream has no leader."""

    async def task(self, archive: Archive) -> Task | None:
        await asyncio.sleep(60)
        return await super().task(archive)


def test_a_silent_engine_does_not_keep_the_status_of_an_archive_that_is_there() -> None:
    world = World(engine=SilentEngine())

    async def scenario() -> TaskState:
        await world.engine.enqueue(world.archive())
        await build(world)
        async with asyncio.timeout(30):
            return (await world.archiver.status(world.archive())).task.state

    assert asyncio.run(scenario()) is TaskState.SUCCESS
