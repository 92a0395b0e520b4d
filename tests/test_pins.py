"""A pinned archive is purged only on an explicit order, and its status says that it is pinned."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from archiver.errors import PinnedArchive, StorageUnavailable
from archiver.model import Archive, Region
from archiver.pins import Pins
from archiver.ports.storage import Traces
from archiver.purge import PurgeOrder, Purger
from archiver.tree_proof import everything
from tests.memory_world import World, build

ORDER = PurgeOrder(principal="cli", reason="a test")
EAST = Region("us-east-1")


def play(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(World())

    asyncio.run(run())


def test_a_pinned_archive_is_not_purged_without_an_explicit_order() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        assert await world.archiver.pins.pin(archive, principal="token:ops", reason="a release")
        with pytest.raises(PinnedArchive):
            await world.archiver.purge(archive, ORDER)
        assert (await world.storage.find(archive)).copies
        assert await world.archiver.purge(archive, replace(ORDER, pinned=True))
        assert await world.storage.read_pin(archive) is None

    play(scenario)


def test_an_unpinned_archive_is_purged() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        pins = world.archiver.pins
        with capture_logs() as lines:
            await pins.pin(archive, principal="token:ops", reason="a release")
            assert await pins.unpin(archive, principal="cli")
            assert not await pins.unpin(archive, principal="cli")
        assert [line["event"] for line in lines] == ["archive.pinned", "archive.unpinned"]
        assert await world.archiver.purge(archive, ORDER)

    play(scenario)


def test_a_pin_over_a_pin_changes_and_logs_nothing() -> None:
    async def scenario(world: World) -> None:
        archive, pins = await build(world), world.archiver.pins
        with capture_logs() as lines:
            assert await pins.pin(archive, principal="token:ops", reason="a release")
            assert await pins.pin(archive, principal="cli", reason="again")
        assert [(line["event"], line["reason"]) for line in lines] == [
            ("archive.pinned", "a release")
        ]
        pin = await world.storage.read_pin(archive)
        assert pin
        assert (pin.principal, pin.reason) == ("token:ops", "a release")

    play(scenario)


def test_an_archive_that_does_not_exist_cannot_be_pinned() -> None:
    async def scenario(world: World) -> None:
        archive = world.archive()
        assert not await world.archiver.pins.pin(archive, principal="cli", reason="x")
        assert world.storage.pins == {region: {} for region in world.storage.regions}

    play(scenario)


def test_the_status_says_that_an_archive_is_pinned_without_asking_the_buckets() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        other = world.new_process()
        await world.archiver.pins.pin(archive, principal="cli", reason="x")
        assert (await world.archiver.status(archive, may_read=everything)).pinned
        assert not (await other.status(archive, may_read=everything)).pinned
        await other.pins.read()
        assert (await other.status(archive, may_read=everything)).pinned
        await world.archiver.pins.unpin(archive, principal="cli")
        await other.pins.read()
        assert not (await other.status(archive, may_read=everything)).pinned

    play(scenario)


def test_a_silent_region_unpins_nothing() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        pins = Pins(storage=world.storage)
        world.storage.down.add(EAST)
        with pytest.raises(StorageUnavailable, match=EAST):
            await pins.pin(archive, principal="cli", reason="x")
        assert pins.is_pinned(archive)
        world.storage.down.update(world.storage.regions)
        await pins.read()
        assert pins.is_pinned(archive)

    play(scenario)


def test_a_silent_region_may_have_a_pin() -> None:
    async def scenario(world: World) -> None:
        archive = await build(world)
        pins = world.archiver.pins
        await pins.pin(archive, principal="cli", reason="x")
        world.storage.down.add(EAST)
        for _ in range(2):
            with pytest.raises(StorageUnavailable, match=EAST):
                await pins.unpin(archive, principal="cli")

    play(scenario)


def test_an_archive_is_not_purged_while_its_pin_is_unknown() -> None:
    """The regions fail when they are asked for traces, and answer again a moment later."""

    async def scenario(world: World) -> None:
        archive = await build(world)
        await world.archiver.pins.pin(archive, principal="token:ops", reason="a release")
        traces = world.storage.traces

        async def fail_once(archive: Archive) -> Traces:
            world.storage.down.update(world.storage.regions)
            found = await traces(archive)
            world.storage.down.clear()
            return found

        world.storage.traces = fail_once  # type: ignore[method-assign]
        purger = Purger(
            storage=world.storage, index=world.index, queue=world.engine, repairs=world.engine
        )
        with pytest.raises(PinnedArchive):
            await purger.purge(archive, ORDER)
        assert (await world.storage.find(archive)).copies

    play(scenario)
