"""Requests and their results, with fakes."""

import asyncio
from dataclasses import replace

import pytest

from archiver.errors import (
    InvalidRequest,
    SourceUnavailable,
    StorageUnavailable,
    TaskFailed,
    UnknownRev,
    UnknownSource,
    UnknownSubdir,
)
from archiver.model import Absent, EnqueueOutcome, Node, Pending, Ready, Region
from tests.memory_world import World, build, request

EAST, WEST = Region("us-east-1"), Region("us-west-2")


def test_a_miss_creates_the_task() -> None:
    world = World()
    outcome = asyncio.run(request(world.archiver, world.wanted("default")))
    assert outcome == Pending(archive=world.archive(), outcome=EnqueueOutcome.CREATED)
    assert list(world.engine.tasks) == [world.archive().key]


def test_two_hundred_requests_in_ten_processes_are_one_task_and_one_fetch() -> None:
    world = World()

    async def scenario() -> list[Ready | Pending | Absent]:
        processes = [world.new_process() for _ in range(10)]
        outcomes = await asyncio.gather(
            *(request(processes[i % 10], world.wanted("default")) for i in range(200))
        )
        await world.work()
        return outcomes

    outcomes = asyncio.run(scenario())
    assert [o.outcome for o in outcomes if isinstance(o, Pending)].count(
        EnqueueOutcome.CREATED
    ) == 1
    assert len(outcomes) == 200
    assert world.source.asked["open"] == 1


def test_a_built_archive_is_a_hit_in_every_region() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        return await request(world.archiver, world.wanted("default"))

    ready = asyncio.run(scenario())
    assert isinstance(ready, Ready)
    assert world.storage.manifests[EAST] == world.storage.manifests[WEST]
    assert len(world.storage.download(ready.url)) == ready.manifest.size_bytes


def test_a_request_without_create_returns_absent() -> None:
    world = World()
    outcome = asyncio.run(request(world.archiver, world.wanted(), create=False))
    assert outcome == Absent(archive=world.archive())
    assert world.untouched


def test_no_task_is_created_for_an_unknown_node() -> None:
    world = World()
    with pytest.raises(UnknownRev):
        asyncio.run(request(world.archiver, world.wanted("0" * 40)))
    assert not world.engine.tasks


def test_a_source_that_is_not_configured_is_unknown() -> None:
    world = World()
    with pytest.raises(UnknownSource):
        world.archiver.source("hgxx")


def test_a_hit_of_a_full_node_needs_neither_host_nor_engine() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        world.source.outage = SourceUnavailable("away")
        world.source.asked.clear()
        world.engine.down = True
        return await request(world.archiver, world.wanted())

    assert isinstance(asyncio.run(scenario()), Ready)
    assert not world.source.asked


@pytest.mark.parametrize(
    ("client_region", "down", "region"),
    ((WEST, None, WEST), (None, None, EAST), (WEST, WEST, EAST), (Region("mars"), None, EAST)),
)
def test_a_hit_is_in_the_clients_own_region_if_that_has_a_copy(
    client_region: Region | None, down: Region | None, region: Region
) -> None:
    world = World()
    world.storage.down.update([down] if down else [])

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        return await request(world.archiver, world.wanted(), client_region=client_region)

    ready = asyncio.run(scenario())
    assert isinstance(ready, Ready)
    assert (ready.region, ready.requested_region) == (region, client_region)


def test_the_preferred_region_comes_before_the_clients_own() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        wanted = replace(world.wanted(), preferred_region=WEST)
        return await request(world.archiver, wanted, client_region=EAST)

    ready = asyncio.run(scenario())
    assert isinstance(ready, Ready)
    assert (ready.region, ready.requested_region) == (WEST, WEST)


def test_copies_in_removed_regions_are_unavailable() -> None:
    world = World()

    async def scenario() -> None:
        await build(world)
        world.storage.regions = (Region("mars"),)
        await request(world.new_process(), world.wanted())

    with pytest.raises(StorageUnavailable):
        asyncio.run(scenario())


def test_a_permanent_failure_is_not_retried_at_once() -> None:
    world = World()

    async def scenario() -> None:
        await request(world.archiver, world.wanted(subdir="no/such"))
        await world.work()
        with pytest.raises(TaskFailed) as failed:
            await request(world.archiver, world.wanted(subdir="no/such"))
        assert failed.value.failed_with == UnknownSubdir.code

    asyncio.run(scenario())
    assert world.source.asked["open"] == 1


@pytest.mark.parametrize("create", (True, False))
@pytest.mark.parametrize("flag", ("submodules", "lfs"))
def test_only_a_source_that_completes_takes_requests_for_complete_archives(
    flag: str, *, create: bool
) -> None:
    world = World()
    submodules, lfs = flag == "submodules", flag == "lfs"
    wanted = replace(world.wanted("default"), submodules=submodules, lfs=lfs)
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(request(world.archiver, wanted, create=create))
    assert refused.value.parameter == flag
    assert world.untouched

    world.source.completes = True
    outcome = asyncio.run(request(world.archiver, wanted))
    archive = replace(world.archive(), submodules=submodules, lfs=lfs)
    assert outcome == Pending(archive=archive, outcome=EnqueueOutcome.CREATED)


def test_the_health_check_covers_every_part() -> None:
    world = World()
    world.storage.down.add(WEST)
    health = asyncio.run(world.archiver.check_health())
    assert health["engine"] is None
    assert health[f"region.{EAST}"] is None
    assert isinstance(health[f"region.{WEST}"], StorageUnavailable)


def test_a_short_hash_and_its_full_node_are_one_archive() -> None:
    world = World()

    async def scenario() -> set[str]:
        outcomes = [
            await request(world.archiver, world.wanted(rev))
            for rev in ("default", "V_1", world.node[:12], world.node, Node(world.node.upper()))
        ]
        return {outcome.archive.key for outcome in outcomes}

    assert asyncio.run(scenario()) == {world.archive().key}
