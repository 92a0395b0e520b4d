"""Builds, and the laws that they keep, with fakes."""

import asyncio
from dataclasses import replace

import pytest

from archiver.errors import (
    ArchiverError,
    EngineUnavailable,
    LeaseLost,
    SourceUnavailable,
    StorageUnavailable,
    TruncatedArchive,
)
from archiver.model import Absent, Archive, Copies, Pending, Ready, Region
from archiver.tasks import Phase, TaskState
from archiver.testing import FakeAttempt
from archiver.tree_proof import TreeMatch, TreeProof, everything
from tests.memory_world import World, build, lose, request

EAST, WEST = Region("us-east-1"), Region("us-west-2")


def test_a_truncated_stream_is_never_published() -> None:
    world = World()
    world.source.cut_at = 100

    async def scenario() -> None:
        with pytest.raises(TruncatedArchive):
            await build(world)
        assert await world.index.copies(world.archive()) is None

    asyncio.run(scenario())
    assert world.storage.objects == {EAST: {}, WEST: {}}
    assert world.storage.manifests == {EAST: {}, WEST: {}}


def test_a_source_that_has_become_another_kind_builds_no_complete_archive() -> None:
    """Its plain archive would be stored under the key of the complete one, for ever."""
    world = World()
    world.source.completes = True

    async def scenario() -> None:
        wanted = replace(world.wanted(), submodules=True)
        await request(world.archiver, wanted)
        world.source.completes = False
        await world.work()

    asyncio.run(scenario())
    (task,) = world.engine.tasks.values()
    assert task.state is TaskState.FAILURE
    assert task.error
    assert task.error.code == "invalid_request"
    assert world.storage.manifests == {EAST: {}, WEST: {}}


def test_every_partial_length_is_refused() -> None:
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

    assert asyncio.run(scenario()) > 100
    assert world.storage.objects == {EAST: {}, WEST: {}}


def test_an_attempt_that_lost_its_lease_publishes_nothing_and_cleans_up() -> None:
    world = World()
    attempt = FakeAttempt(archive=world.archive())
    attempt.lost = True
    with pytest.raises(LeaseLost):
        asyncio.run(world.archiver.build(world.archive(), attempt))
    assert world.storage.objects == {EAST: {}, WEST: {}}
    assert world.storage.manifests == {EAST: {}, WEST: {}}


def test_of_two_attempts_that_overlap_the_first_manifest_stays() -> None:
    world = World()

    async def scenario() -> set[str]:
        archive = world.archive()
        attempts = [FakeAttempt(archive=archive) for _ in range(2)]
        copies = await asyncio.gather(*(world.new_process().build(archive, a) for a in attempts))
        return {c.manifest.object_key for c in copies}

    (object_key,) = asyncio.run(scenario())
    for region in (EAST, WEST):
        assert list(world.storage.objects[region]) == [object_key]


def test_a_repeated_build_fetches_nothing() -> None:
    world = World()

    async def scenario() -> None:
        await build(world)
        await build(world)

    asyncio.run(scenario())
    assert world.source.asked["open"] == 1


def test_a_region_that_was_down_is_repaired() -> None:
    world = World()

    async def scenario() -> tuple[object, object]:
        world.storage.down.add(WEST)
        archive = await build(world)
        asked = dict(world.engine.repairs)
        world.storage.down.clear()
        await build(world)
        assert list(world.storage.manifests[WEST]) == [archive.key]
        return asked, world.engine.repairs

    asked, left = asyncio.run(scenario())
    assert asked == {world.archive().key: (WEST,)}
    assert left == {}
    assert world.source.asked["open"] == 1


def test_a_task_does_not_end_before_the_repair_of_a_missing_copy_is_listed() -> None:
    """Found by the fault campaign: region-409-on-create-only together with engine-killed."""
    world = World()

    async def scenario() -> Archive:
        world.storage.down.add(WEST)
        world.engine.down = True
        with pytest.raises(EngineUnavailable):
            await build(world)
        world.engine.down = False
        return await build(world)

    archive = asyncio.run(scenario())
    assert world.engine.repairs == {archive.key: (WEST,)}
    assert world.source.asked["open"] == 1


def test_a_repair_copies_the_commit_of_a_proof_although_the_index_lacks_it() -> None:
    world = World()
    proof = TreeProof(commit=b"tree 1\n", tree="1" * 40, match=TreeMatch.EXACT)

    async def scenario() -> None:
        archive = await build(world)
        stored = replace(world.storage.manifests[EAST][archive.key], proof=proof)
        world.storage.manifests[EAST][archive.key] = stored
        del world.storage.manifests[WEST][archive.key]
        known = Copies(manifest=stored, regions=(EAST,))
        await world.index.record(archive, known)
        found = await world.index.copies(archive)
        assert found == known
        assert found.manifest.proof
        assert not found.manifest.proof.commit
        await build(world)
        repaired = world.storage.manifests[WEST][archive.key].proof
        assert repaired
        assert repaired.commit == proof.commit

    asyncio.run(scenario())


def test_a_hit_with_a_missing_copy_requests_its_repair() -> None:
    world = World()

    async def scenario() -> Ready | Pending | Absent:
        world.storage.down.add(WEST)
        await build(world)
        world.engine.repairs.clear()
        return await request(world.archiver, world.wanted())

    assert isinstance(asyncio.run(scenario()), Ready)
    assert world.engine.repairs == {world.archive().key: (WEST,)}


def test_without_any_region_a_build_fails() -> None:
    world = World()
    world.storage.down.update((EAST, WEST))
    with pytest.raises(StorageUnavailable):
        asyncio.run(build(world))


@pytest.mark.parametrize("trouble", ("down", "full"))
def test_no_request_is_sent_to_the_host_while_no_region_takes_writes(trouble: str) -> None:
    world = World()
    getattr(world.storage, trouble).update((EAST, WEST))
    with pytest.raises(StorageUnavailable):
        asyncio.run(build(world))
    assert not world.source.asked


def test_a_read_only_region_is_skipped_and_repaired_later() -> None:
    world = World()
    world.storage.full.add(WEST)
    archive = asyncio.run(build(world))
    assert list(world.storage.manifests[EAST]) == [archive.key]
    assert world.engine.repairs == {archive.key: (WEST,)}


def test_a_repair_does_not_fetch_while_the_region_with_the_copy_is_unreachable() -> None:
    """A second fetch would give the archive a second manifest, in the other region."""
    world = World()
    world.storage.down.add(WEST)

    async def scenario() -> None:
        await build(world)
        world.storage.down.symmetric_difference_update({EAST, WEST})
        with pytest.raises(StorageUnavailable):
            await build(world)

    asyncio.run(scenario())
    assert world.source.asked["open"] == 1
    assert world.storage.manifests[WEST] == {}


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

    asyncio.run(scenario())
    assert world.storage.objects[WEST] == {}
    assert world.storage.manifests[WEST] == {}
    assert world.engine.repairs == {world.archive().key: (WEST,)}


def test_an_archive_lost_in_every_region_is_rebuilt_with_the_same_sha256() -> None:
    world = World()

    async def scenario() -> None:
        archive = await build(world)
        before = await world.storage.find(archive)
        lose(world)
        assert (await world.storage.find(archive)).copies is None
        await build(world)
        assert await world.storage.find(archive) == before

    asyncio.run(scenario())
    assert world.source.asked["open"] == 2


def test_a_lost_archive_is_never_replaced_by_other_bytes() -> None:
    world = World()

    async def scenario() -> None:
        archive = await build(world)
        manifests = dict(world.storage.manifests[EAST])
        lose(world)
        world.source.latest_tag = "V_1"
        await world.index.forget(archive)
        assert isinstance(await request(world.archiver, world.wanted()), Pending)
        await world.work()
        status = await world.archiver.status(archive, may_read=everything)
        assert (status.task.state, status.urls) == (TaskState.FAILURE, {})
        assert status.task.error
        assert status.task.error.code == "bytes_changed"
        assert world.storage.manifests[EAST] == manifests

    asyncio.run(scenario())
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

    asyncio.run(scenario())


def test_a_build_reports_its_progress() -> None:
    world = World()
    attempt = FakeAttempt(archive=world.archive())
    copies = asyncio.run(world.archiver.build(world.archive(), attempt))
    phases = [phase for phase, _ in attempt.reports]
    assert list(dict.fromkeys(phases)) == [Phase.CONNECTING, Phase.FETCHING, Phase.COMMITTING]
    assert attempt.reports[-1] == (Phase.COMMITTING, copies.manifest.size_bytes)


@pytest.mark.parametrize("error", (SourceUnavailable("a"), StorageUnavailable("b")))
def test_a_retryable_error_is_retried_until_it_ends(error: ArchiverError) -> None:
    world = World()

    async def scenario() -> TaskState:
        await request(world.archiver, world.wanted())
        attempt = world.engine.claim()
        assert attempt
        world.engine.retry(attempt, error)
        await world.work()
        return world.engine.tasks[world.archive().key].state

    assert asyncio.run(scenario()) is TaskState.SUCCESS
