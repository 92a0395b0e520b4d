"""The two use cases, and the laws they keep, in a world of fakes."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from archiver.errors import (
    ArchiverError,
    EngineUnavailable,
    LeaseLost,
    SourceUnavailable,
    StorageUnavailable,
    TaskFailed,
    TruncatedArchive,
    UnknownRev,
    UnknownSource,
    UnknownSubdir,
)
from archiver.model import Absent, Archive, Joined, Node, Pending, Ready, Region
from archiver.ports import Found
from archiver.service import Status
from archiver.tasks import Phase, TaskState
from archiver.testing import FakeAttempt, MemoryStorage
from archiver.web.watches import open_watches
from tests.world import World

T = TypeVar("T")
EAST, WEST = Region("us-east-1"), Region("us-west-2")


class CountingStorage(MemoryStorage):
    """``looks`` counts the questions whether an archive is there."""

    looks = 0

    async def find(self, archive: Archive) -> Found:
        self.looks += 1
        await asyncio.sleep(0)
        return await super().find(archive)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


async def build(world: World, subdir: str = "") -> Archive:
    """Have the archive built by a worker, and return it."""
    archive = world.archive(subdir)
    await world.archiver.build(archive, FakeAttempt(archive=archive))
    return archive


def test_a_miss_creates_the_task() -> None:
    world = World()
    outcome = run(world.archiver.request(world.wanted("default")))
    assert outcome == Pending(archive=world.archive(), outcome=Joined.MISS)
    assert list(world.engine.tasks) == [world.archive().key]


def test_two_hundred_requests_in_ten_processes_are_one_task_and_one_fetch() -> None:
    world = World()

    async def scenario() -> list[Ready | Pending | Absent]:
        processes = [world.new_process() for _ in range(10)]
        outcomes = await asyncio.gather(
            *(processes[i % 10].request(world.wanted("default")) for i in range(200))
        )
        await world.engine.work(world.archiver)
        return outcomes

    outcomes = run(scenario())
    assert [o.outcome for o in outcomes if isinstance(o, Pending)].count(Joined.MISS) == 1
    assert len(outcomes) == 200
    assert world.source.asked["open"] == 1


def test_what_was_built_is_a_hit_in_every_region() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        return await world.archiver.request(world.wanted("default"))

    ready = run(scenario())
    assert isinstance(ready, Ready)
    assert world.storage.manifests[EAST] == world.storage.manifests[WEST]
    assert len(world.storage.download(ready.url)) == ready.manifest.size_bytes


def test_who_asks_that_nothing_be_created_is_told_of_absence() -> None:
    world = World()
    outcome = run(world.archiver.request(world.wanted(), create=False))
    assert outcome == Absent(archive=world.archive())
    assert world.untouched


def test_no_task_is_created_for_a_node_that_the_host_has_not() -> None:
    world = World()
    with pytest.raises(UnknownRev):
        run(world.archiver.request(world.wanted("0" * 40)))
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
        return await world.archiver.request(world.wanted())

    assert isinstance(run(scenario()), Ready)
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
        return await world.archiver.request(world.wanted(), client_region=client_region)

    ready = run(scenario())
    assert isinstance(ready, Ready)
    assert (ready.region, ready.wanted) == (region, client_region)


def test_a_region_that_is_preferred_counts_more_than_the_clients_own() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        await build(world)
        wanted = replace(world.wanted(), preferred_region=WEST)
        return await world.archiver.request(wanted, client_region=EAST)

    ready = run(scenario())
    assert isinstance(ready, Ready)
    assert (ready.region, ready.wanted) == (WEST, WEST)


def test_copies_in_regions_that_are_not_configured_any_more_are_out_of_reach() -> None:
    world = World()

    async def scenario() -> None:
        await build(world)
        world.storage.regions = (Region("mars"),)
        await world.new_process().request(world.wanted())

    with pytest.raises(StorageUnavailable):
        run(scenario())


def test_what_failed_for_good_is_not_tried_again_at_once() -> None:
    world = World()

    async def scenario() -> None:
        await world.archiver.request(world.wanted(subdir="no/such"))
        await world.engine.work(world.archiver)
        with pytest.raises(TaskFailed) as failed:
            await world.archiver.request(world.wanted(subdir="no/such"))
        assert failed.value.failed_with == UnknownSubdir.code

    run(scenario())
    assert world.source.asked["open"] == 1


def test_a_stream_that_breaks_off_is_never_seen_by_anyone() -> None:
    world = World()
    world.source.cut_at = 100

    async def scenario() -> None:
        with pytest.raises(TruncatedArchive):
            await build(world)
        assert await world.index.copies(world.archive()) is None

    run(scenario())
    assert world.storage.objects == {EAST: {}, WEST: {}}
    assert world.storage.manifests == {EAST: {}, WEST: {}}


def test_every_length_but_the_whole_is_refused() -> None:
    world = World()

    async def scenario() -> int:
        await build(world, "testing")
        size = len(next(iter(world.storage.objects[EAST].values())))
        for region in (EAST, WEST):
            world.storage.objects[region].clear()
            world.storage.manifests[region].clear()
        for world.source.cut_at in range(size):
            with pytest.raises(TruncatedArchive):
                await build(world, "testing")
        return size

    assert run(scenario()) > 100
    assert world.storage.objects == {EAST: {}, WEST: {}}


def test_an_attempt_that_lost_its_lease_publishes_nothing_and_cleans_up() -> None:
    world = World()
    attempt = FakeAttempt(archive=world.archive())
    attempt.lost = True
    with pytest.raises(LeaseLost):
        run(world.archiver.build(world.archive(), attempt))
    assert world.storage.objects == {EAST: {}, WEST: {}}
    assert world.storage.manifests == {EAST: {}, WEST: {}}


def test_of_two_attempts_that_overlap_the_first_manifest_stays() -> None:
    world = World()

    async def scenario() -> set[str]:
        archive = world.archive()
        attempts = [FakeAttempt(archive=archive) for _ in range(2)]
        copies = await asyncio.gather(*(world.new_process().build(archive, a) for a in attempts))
        return {c.manifest.object_key for c in copies}

    (object_key,) = run(scenario())
    for region in (EAST, WEST):
        assert list(world.storage.objects[region]) == [object_key]


def test_a_repeated_build_fetches_nothing() -> None:
    world = World()

    async def scenario() -> None:
        await build(world)
        await build(world)

    run(scenario())
    assert world.source.asked["open"] == 1


def test_a_region_that_was_down_is_asked_to_be_repaired_and_is() -> None:
    world = World()

    async def scenario() -> tuple[object, object]:
        world.storage.down.add(WEST)
        archive = await build(world)
        asked = dict(world.engine.repairs)
        world.storage.down.clear()
        await build(world)
        assert list(world.storage.manifests[WEST]) == [archive.key]
        return asked, world.engine.repairs

    asked, left = run(scenario())
    assert asked == {world.archive().key: (WEST,)}
    assert left == {}
    assert world.source.asked["open"] == 1


def test_a_hit_that_lacks_a_region_has_it_repaired() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        world.storage.down.add(WEST)
        await build(world)
        world.engine.repairs.clear()
        return await world.archiver.request(world.wanted())

    assert isinstance(run(scenario()), Ready)
    assert world.engine.repairs == {world.archive().key: (WEST,)}


def test_without_any_region_a_build_fails_and_says_so() -> None:
    world = World()
    world.storage.down.update((EAST, WEST))
    with pytest.raises(StorageUnavailable):
        run(build(world))


def test_damaged_bytes_are_not_copied_to_another_region() -> None:
    world = World()

    async def scenario() -> None:
        world.storage.down.add(WEST)
        await build(world)
        world.storage.down.clear()
        objects = world.storage.objects[EAST]
        ((object_key, body),) = objects.items()
        objects[object_key] = b"?" * len(body)
        await build(world)

    run(scenario())
    assert world.storage.objects[WEST] == {}
    assert world.storage.manifests[WEST] == {}
    assert world.engine.repairs == {world.archive().key: (WEST,)}


def lose(world: World) -> None:
    """Delete all objects by hand; their manifests stay."""
    for objects in world.storage.objects.values():
        objects.clear()


def test_an_archive_that_every_region_lost_comes_back_with_its_old_digest() -> None:
    world = World()

    async def scenario() -> None:
        archive = await build(world)
        before = await world.storage.find(archive)
        lose(world)
        assert (await world.storage.find(archive)).copies is None
        await build(world)
        assert await world.storage.find(archive) == before

    run(scenario())
    assert world.source.asked["open"] == 2


def test_an_archive_that_was_lost_is_never_replaced_by_one_with_other_bytes() -> None:
    world = World()

    async def scenario() -> None:
        archive = await build(world)
        manifests = dict(world.storage.manifests[EAST])
        lose(world)
        world.source.latest_tag = "V_1"
        await world.index.forget(archive)
        assert isinstance(await world.archiver.request(world.wanted()), Pending)
        await world.engine.work(world.archiver)
        status = await world.archiver.status(archive)
        assert (status.task.state, status.urls) == (TaskState.FAILURE, {})
        assert status.task.error
        assert status.task.error.code == "bytes_changed"
        assert world.storage.manifests[EAST] == manifests

    run(scenario())
    assert not any(world.storage.objects.values())


def test_an_attempt_that_lost_its_lease_deletes_nothing_that_a_manifest_names() -> None:
    world = World()

    async def scenario() -> None:
        archive = await build(world)
        before = await world.storage.find(archive)
        lose(world)
        attempt = FakeAttempt(archive=archive)
        attempt.lost = True
        with pytest.raises(LeaseLost):
            await world.archiver.build(archive, attempt)
        assert await world.storage.find(archive) == before

    run(scenario())


def test_a_build_reports_its_way() -> None:
    world = World()
    attempt = FakeAttempt(archive=world.archive())
    copies = run(world.archiver.build(world.archive(), attempt))
    phases = [phase for phase, _ in attempt.reports]
    assert list(dict.fromkeys(phases)) == [Phase.CONNECTING, Phase.FETCHING, Phase.COMMITTING]
    assert attempt.reports[-1] == (Phase.COMMITTING, copies.manifest.size_bytes)


@pytest.mark.parametrize("error", (SourceUnavailable("a"), StorageUnavailable("b")))
def test_a_retryable_error_is_retried_until_it_is_over(error: ArchiverError) -> None:
    world = World()

    async def scenario() -> TaskState:
        await world.archiver.request(world.wanted())
        attempt = world.engine.claim()
        assert attempt
        world.engine.retry(attempt, error)
        await world.engine.work(world.archiver)
        return world.engine.tasks[world.archive().key].state

    assert run(scenario()) is TaskState.SUCCESS


def test_the_status_of_a_task_that_nobody_knows_is_pending() -> None:
    world = World()
    status = run(world.archiver.status(world.archive()))
    assert status.task.state is TaskState.PENDING
    assert status.urls == {}
    assert world.untouched


def test_a_status_is_success_if_the_buckets_say_so_whatever_the_engine_says() -> None:
    world = World()

    async def scenario() -> TaskState:
        await world.engine.enqueue(world.archive())
        await build(world)
        return (await world.archiver.status(world.archive())).task.state

    assert run(scenario()) is TaskState.SUCCESS


def test_a_status_is_no_success_without_an_archive_whatever_the_engine_says() -> None:
    world = World()

    async def scenario() -> Status:
        await world.engine.enqueue(world.archive())
        attempt = world.engine.claim()
        assert attempt
        world.engine.succeed(attempt)
        return await world.archiver.status(world.archive())

    status = run(scenario())
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

    assert run(scenario()) is TaskState.PENDING
    assert storage.looks == 1


def test_a_status_has_a_link_for_each_copy_and_names_the_regions_without() -> None:
    world = World()

    async def scenario() -> Status:
        world.storage.down.add(EAST)
        await build(world)
        return await world.archiver.status(world.archive())

    status = run(scenario())
    assert list(status.urls) == [WEST]
    assert status.missing == (EAST,)
    assert status.urls[WEST] not in repr(status)


def test_a_status_that_only_the_engine_could_tell_is_not_made_up() -> None:
    world = World()
    world.engine.down = True
    with pytest.raises(EngineUnavailable):
        run(world.archiver.status(world.archive()))


def test_a_check_asks_everyone() -> None:
    world = World()
    world.storage.down.add(WEST)
    health = run(world.archiver.check())
    assert health.engine is None
    assert health.regions[EAST] is None
    assert isinstance(health.regions[WEST], StorageUnavailable)


def test_a_short_hash_and_its_full_node_are_one_archive() -> None:
    world = World()

    async def scenario() -> set[str]:
        outcomes = [
            await world.archiver.request(world.wanted(rev))
            for rev in ("default", "V_1", world.node[:12], world.node, Node(world.node.upper()))
        ]
        return {outcome.archive.key for outcome in outcomes}

    assert run(scenario()) == {world.archive().key}
