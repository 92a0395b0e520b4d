"""Every trace of an archive is removed, or the purge says what is left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable, PurgeUnfinished
from archiver.model import Archive, Copies, Pending, Region
from archiver.purge import PurgeOrder, Purger, is_reason
from archiver.tasks import Priority
from archiver.testing import FakeAttempt
from tests.memory_world import World, build, request

ORDER = PurgeOrder(principal="token:ops", reason="a key leaked")
EAST = Region("us-east-1")


def play(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(World())

    asyncio.run(run())


def purger(world: World) -> Purger:
    return Purger(
        storage=world.storage, index=world.index, queue=world.engine, repairs=world.engine
    )


def test_a_purged_archive_is_gone_from_every_place_and_can_be_requested_again() -> None:
    async def scenario(world: World) -> None:
        await request(world.archiver, world.wanted())
        await world.work()
        archive = world.archive()
        (sha256,) = (await world.storage.traces(archive)).sha256s
        await world.engine.add(archive, [EAST])
        assert await purger(world).purge(archive, ORDER)

        assert (await world.storage.traces(archive)).regions == ()
        assert await world.index.by_sha256(sha256) == ()
        assert (world.engine.tasks, world.engine.repairs) == ({}, {})
        assert isinstance(await request(world.archiver, world.wanted()), Pending)

    play(scenario)


def test_each_purge_is_logged_with_its_client_and_its_reason() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        traces = await world.storage.traces(archive)
        with capture_logs() as lines:
            await purger(world).purge(archive, ORDER)
        assert lines == [
            {
                "event": "archive.purged",
                "log_level": "warning",
                "key": archive.key,
                "sha256": traces.sha256s[0],
                "size_bytes": traces.total_bytes,
                "regions": list(world.storage.regions),
                "principal": "token:ops",
                "reason": "a key leaked",
            }
        ]

    play(scenario)


def test_an_archive_without_a_trace_is_none_and_is_not_logged() -> None:
    async def scenario(world: World) -> None:
        with capture_logs() as lines:
            assert await purger(world).purge(world.archive(), ORDER) is None
        assert lines == []
        assert world.storage.marks == {region: {} for region in world.storage.regions}

    play(scenario)


def test_an_unfinished_purge_names_the_regions_and_a_second_one_ends_it() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        world.storage.down.add(EAST)
        with capture_logs() as lines, pytest.raises(PurgeUnfinished, match=EAST):
            await purger(world).purge(archive, ORDER)
        (line,) = lines
        assert (line["event"], line["region"]) == ("archive.purge_unfinished", EAST)
        assert line["sha256"]

        world.storage.down.clear()
        assert world.storage.manifests[EAST]
        with pytest.raises(PurgeUnfinished):
            await request(world.archiver, world.wanted())
        assert await purger(world).purge(archive, ORDER)
        assert (await world.storage.traces(archive)).regions == ()

    play(scenario)


def test_a_repair_does_not_copy_an_archive_whose_purge_is_unfinished() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        world.storage.down.add(EAST)
        with pytest.raises(PurgeUnfinished):
            await purger(world).purge(archive, ORDER)
        world.storage.down.clear()
        assert world.engine.repairs == {}
        await world.engine.enqueue(archive, priority=Priority.LOW)
        await world.work()
        task = await world.engine.task(archive)
        assert task is not None
        assert task.error is not None
        assert task.error.code == "purge_unfinished"
        assert [region for region, held in world.storage.manifests.items() if held] == [EAST]

    play(scenario)


def test_without_the_engine_the_bytes_go_and_the_marks_stay() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        world.index.outage = EngineUnavailable("the engine does not answer")
        with pytest.raises(EngineUnavailable):
            await purger(world).purge(archive, ORDER)
        assert world.storage.objects == {region: {} for region in world.storage.regions}
        assert (await world.storage.traces(archive)).regions == world.storage.regions
        world.index.outage = None
        assert await purger(world).purge(archive, ORDER)
        assert (await world.storage.traces(archive)).regions == ()

    play(scenario)


def test_two_purges_at_once_both_end() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        await asyncio.gather(*(purger(world).purge(archive, ORDER) for _ in range(2)))
        assert (await world.storage.traces(archive)).regions == ()

    play(scenario)


def test_a_build_that_commits_after_the_purge_makes_a_new_archive() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        await purger(world).purge(archive, ORDER)
        copies = await world.archiver.build(archive, FakeAttempt(archive=archive))
        assert await world.index.copies(archive) == copies

    play(scenario)


def test_a_build_that_saw_the_copies_before_the_purge_is_not_recorded() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        found = (await world.storage.find(archive)).copies
        assert isinstance(found, Copies)
        await purger(world).purge(archive, ORDER)
        await world.index.record(archive, found)
        assert await world.index.copies(archive) is None

    play(scenario)


def test_a_damaged_manifest_is_purged() -> None:
    async def scenario(world: World) -> None:
        archive: Archive = await build(world)
        world.storage.unreadable.add(archive)
        assert await purger(world).purge(archive, ORDER)
        assert (await world.storage.find(archive)).copies is None

    play(scenario)


@pytest.mark.parametrize(
    ("text", "valid"),
    (("a key leaked", True), ("", False), ("  ", False), ("a\nb", False), ("x" * 501, False)),
)
def test_a_reason_is_a_short_printable_text(text: str, *, valid: bool) -> None:
    assert is_reason(text) is valid


def test_a_waiting_client_keeps_its_task() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        await purger(world).purge(archive, ORDER)
        await request(world.archiver, world.wanted())
        await purger(world).purge(archive, ORDER)
        task: Any = await world.engine.task(archive)
        assert task is not None
        assert not task.state.terminal

    play(scenario)
