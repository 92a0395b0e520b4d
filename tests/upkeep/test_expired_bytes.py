"""The bytes of an expired archive stay as long as links lead there."""

from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.errors import EngineUnavailable
from archiver.model import Pin
from archiver.testing import MemoryStockBook
from archiver.upkeep.inventory import Inventory
from archiver.upkeep.leftovers import Leftovers
from archiver.upkeep.sweep import Sweeper
from tests.parts.fleet import copies_of
from tests.upkeep.gc_bench import DAY, GRACE, HOUR, ONE, TWO, Bench, play


def test_the_bytes_stay_until_no_link_leads_there() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        await bench.run()
        bench.age_tombstone(archive, GRACE - HOUR)
        _, tally = await bench.run()
        assert (tally.removed, tally.waiting, tally.waiting_bytes) == (0, 2, 20)
        assert len(bench.objects(archive)) == 2
        bench.age_tombstone(archive, HOUR)
        _, tally = await bench.run(apply=False)
        assert (tally.removed, tally.waiting) == (0, 2)
        _, tally = await bench.run()
        assert (tally.removed, tally.removed_bytes, tally.waiting) == (2, 20, 0)
        assert bench.objects(archive) == []
        assert await bench.storage.read_tombstone(archive)

    play(scenario)


def test_bytes_of_a_rebuilt_archive_go_and_the_new_ones_stay() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        await bench.run()
        new = replace(
            copies_of(archive).manifest,
            object_key=f"archives/{archive.key}/again-1/{archive.file_name}",
            size_bytes=7,
            created_at=bench.now,
        )
        for region in (ONE, TWO):
            bench.put(archive, new, region)
        bench.age_tombstone(archive, GRACE)
        _, tally = await bench.run()
        assert tally.removed == 2
        assert bench.objects(archive) == [new.object_key, new.object_key]
        assert (await bench.storage.find(archive)).copies

    play(scenario)


def test_a_sweep_removes_expired_bytes_too_and_only_then() -> None:
    async def scenario(bench: Bench) -> None:
        archives = [await bench.store() for _ in range(12)]
        await bench.run()
        sweeper = Sweeper(
            storage=bench.storage,
            contents=bench.storage.contents,
            schedule=bench.schedule,
            stock_book=MemoryStockBook(),
            expirer=bench.expirer,
            interval=DAY,
            min_age=DAY,
        )
        assert (await sweeper.sweep()).objects == 0
        for archive in archives:
            bench.age_tombstone(archive, GRACE)
        assert (await sweeper.sweep()).objects == 24
        assert bench.storage.objects == {ONE: {}, TWO: {}}

    play(scenario)


def test_the_bytes_of_a_pinned_archive_stay_although_it_lost_its_manifests() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        await bench.run()
        bench.age_tombstone(archive, 2 * GRACE)
        pin = Pin(principal="x", reason="y", created_at=bench.now)
        bench.storage.pins[TWO][archive.key] = pin
        for _ in range(3):
            await bench.run()
            bench.age_tombstone(archive, 2 * GRACE)
        assert bench.objects(archive)

    play(scenario)


def test_expired_bytes_are_no_orphans() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        leftovers = Leftovers(
            storage=bench.storage, contents=bench.storage.contents, min_age=timedelta(0)
        )
        (key, _) = bench.objects(archive)
        await bench.run()
        inventory = Inventory(contents=bench.storage.contents)
        await inventory.survey()
        (listed,) = [each async for each in inventory.archives()]
        found = await leftovers.find_orphans(listed)
        assert [orphan.tombstone is not None for orphan in found] == [True, True]
        assert not await leftovers.remove(found[0])
        assert bench.objects(archive) == [key, key]

    play(scenario)


def test_a_run_that_lost_the_engine_is_completed_before_the_bytes_go() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        bench.index.outage = EngineUnavailable("away")
        with pytest.raises(EngineUnavailable):
            await bench.run()
        bench.age_tombstone(archive, GRACE)
        with pytest.raises(EngineUnavailable):
            await bench.run()
        assert len(bench.objects(archive)) == 2
        assert await bench.index.copies(archive)  # the index still leads there
        bench.index.outage = None
        _, tally = await bench.run()
        assert await bench.index.copies(archive) is None
        assert (tally.removed, tally.waiting) == (0, 2), "a client may have got a link just now"
        bench.age_tombstone(archive, GRACE)
        _, tally = await bench.run()
        assert tally.removed == 2

    play(scenario)
