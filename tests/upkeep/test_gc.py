"""Archives expire, and leave tombstones. Their bytes stay as long as links lead there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.model import Archive, Manifest, Pin, Region, Tombstone
from archiver.ports.storage import Listing
from archiver.retention import Retention, RetentionRule
from archiver.testing import (
    MemoryEngine,
    MemoryIndex,
    MemoryLastUses,
    MemorySchedule,
    MemoryStorage,
)
from archiver.upkeep.collector import RUN, WORK, Collector
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.expiry_plan import Reason
from archiver.upkeep.gc import Gc, GcTally, Outcome
from archiver.upkeep.inventory import Inventory
from archiver.upkeep.leftovers import Leftovers
from archiver.upkeep.periodic import RETRY
from archiver.upkeep.sweep import Sweeper
from tests.parts.fleet import an_archive, copies_of

ONE, TWO = Region("one"), Region("two")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
GRACE = 2 * HOUR
OLD = 40
MONTH = Retention(days=30)


class Bench:
    def __init__(self) -> None:
        self.storage = MemoryStorage(regions=(ONE, TWO))
        self.uses = MemoryLastUses()
        self.schedule = MemorySchedule()
        self.index = MemoryIndex(storage=self.storage)
        self.engine = MemoryEngine()
        self.expirer = Expirer(
            storage=self.storage,
            contents=self.storage.contents,
            index=self.index,
            queue=self.engine,
            repairs=self.engine,
            grace=GRACE,
        )
        self.now = datetime.now(UTC)

    async def open(self) -> None:
        """Have the fleet know of uses since long ago."""
        await self.uses.record([], self.now.date() - timedelta(days=1000))

    def gc(self, retention: Retention = MONTH) -> Gc:
        return Gc(
            storage=self.storage,
            contents=self.storage.contents,
            uses=self.uses,
            expirer=self.expirer,
            retention=retention,
            today=self.now.date,
        )

    async def run(
        self, retention: Retention = MONTH, *, apply: bool = True
    ) -> tuple[dict[Archive, Outcome], GcTally]:
        gc = self.gc(retention)
        results = {r.expiry.archive: r.outcome async for r in gc.run(apply=apply)}
        return results, gc.tally

    def collector(self) -> Collector:
        return Collector(new_gc=self.gc, schedule=self.schedule, interval=DAY)

    async def store(self, *regions: Region, days: float = OLD) -> Archive:
        """Store and index an archive that is so many *days* old, of ten bytes."""
        archive = an_archive()
        created = self.now - timedelta(days=days)
        manifest = replace(copies_of(archive).manifest, size_bytes=10, created_at=created)
        for region in regions or (ONE, TWO):
            self.put(archive, manifest, region)
        await self.index.copies(archive)
        return archive

    def put(self, archive: Archive, manifest: Manifest, region: Region) -> None:
        contents = self.storage.contents
        self.storage.manifests[region][archive.key] = manifest
        self.storage.objects[region][manifest.object_key] = bytes(manifest.size_bytes)
        contents.modified_at[manifest.object_key] = manifest.created_at
        contents.modified_at[f"manifests/{archive.key}.json"] = manifest.created_at

    def age_tombstone(self, archive: Archive, age: timedelta) -> None:
        for stored in self.storage.tombstones.values():
            tombstone = stored[archive.key]
            stored[archive.key] = replace(tombstone, expired_at=tombstone.expired_at - age)

    def objects(self, archive: Archive) -> list[str]:
        keys = (key for objects in self.storage.objects.values() for key in objects)
        return [key for key in keys if archive.key in key]


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench()
        await bench.open()
        await scenario(bench)

    asyncio.run(run())


def test_an_unused_archive_expires_and_leaves_a_tombstone() -> None:
    async def scenario(bench: Bench) -> None:
        old, new = await bench.store(), await bench.store(days=20)
        with capture_logs() as lines:
            results, tally = await bench.run()
        assert results == {old: Outcome.EXPIRED}
        assert (tally.archives, tally.planned, tally.planned_bytes, tally.expired) == (2, 1, 20, 1)
        assert (await bench.storage.find(old)).copies is None
        assert await bench.index.copies(old) is None
        assert await bench.index.copies(new)
        tombstone = await bench.storage.read_tombstone(old)
        assert tombstone
        assert (tombstone.node, tombstone.size_bytes) == (old.node, 10)
        assert len(bench.objects(old)) == 2
        assert [line["event"] for line in lines] == ["archive.expired"]

    play(scenario)


def test_a_dry_run_changes_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        old = await bench.store()
        results, tally = await bench.run(apply=False)
        assert results == {old: Outcome.PLANNED}
        assert (tally.planned, tally.expired) == (1, 0)
        assert (await bench.storage.find(old)).copies
        assert await bench.storage.read_tombstone(old) is None

    play(scenario)


def test_a_use_keeps_an_archive() -> None:
    async def scenario(bench: Bench) -> None:
        used, unused = await bench.store(), await bench.store()
        await bench.uses.record([used.key_hash], bench.now.date() - timedelta(days=30))
        await bench.uses.record([unused.key_hash], bench.now.date() - timedelta(days=31))
        assert set((await bench.run())[0]) == {unused}

    play(scenario)


def test_after_the_loss_of_the_engine_days_count_from_then_on() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        bench.uses = MemoryLastUses()
        assert (await bench.run())[0] == {}
        await bench.uses.record([], bench.now.date() - timedelta(days=30))
        assert (await bench.run())[0] == {}
        bench.now += DAY
        assert set((await bench.run())[0]) == {archive}

    play(scenario)


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


def test_a_pinned_archive_never_expires() -> None:
    async def scenario(bench: Bench) -> None:
        listed, late = await bench.store(), await bench.store()
        pin = Pin(principal="x", reason="y", created_at=bench.now)
        await bench.storage.put_pin(listed, pin)
        put = bench.storage.put_tombstone

        async def pin_meanwhile(
            archive: Archive, tombstone: Tombstone
        ) -> dict[Region, StorageUnavailable]:
            await bench.storage.put_pin(archive, pin)
            return dict(await put(archive, tombstone))

        bench.storage.put_tombstone = pin_meanwhile  # type: ignore[method-assign]
        results, tally = await bench.run(Retention(days=1, budget_bytes=0))
        assert results == {late: Outcome.KEPT}
        assert (await bench.storage.find(late)).copies
        assert (await bench.storage.find(listed)).copies
        assert tally.kept == 1

    play(scenario)


def test_if_the_pins_are_not_all_known_nothing_expires() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        bench.storage.down.add(TWO)
        with pytest.raises(StorageUnavailable):
            await bench.run()
        bench.storage.down.clear()
        assert (await bench.storage.find(archive)).copies

    play(scenario)


def test_an_archive_that_is_being_purged_is_left_to_the_purge() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        put = bench.storage.put_tombstone

        async def purge_meanwhile(
            archive: Archive, tombstone: Tombstone
        ) -> dict[Region, StorageUnavailable]:
            await bench.storage.begin_purge(archive, purge="p1")
            return dict(await put(archive, tombstone))

        bench.storage.put_tombstone = purge_meanwhile  # type: ignore[method-assign]
        results, _ = await bench.run()
        assert results == {archive: Outcome.KEPT}
        assert bench.storage.marks[ONE] == {archive.key: "p1"}
        assert await bench.storage.read_tombstone(archive) is None

    play(scenario)


def test_an_archive_that_was_built_again_stays() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        manifest = replace(bench.storage.manifests[ONE][archive.key], created_at=bench.now)
        for region in (ONE, TWO):
            bench.storage.manifests[region][archive.key] = manifest
        assert (await bench.run())[0] == {archive: Outcome.KEPT}

    play(scenario)


def test_regions_that_disagree_are_left_to_the_operator() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        manifests = bench.storage.manifests[TWO]
        manifests[archive.key] = replace(manifests[archive.key], sha256="1" * 64)
        assert (await bench.run())[0] == {archive: Outcome.KEPT}

    play(scenario)


def test_if_a_region_refuses_the_tombstone_the_archive_stays() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        bench.storage.full.add(TWO)
        results, tally = await bench.run()
        assert results == {archive: Outcome.UNANSWERED}
        assert (tally.unanswered, tally.complete) == (1, False)
        assert (await bench.storage.find(archive)).copies
        bench.storage.full.clear()
        assert (await bench.run())[0] == {archive: Outcome.EXPIRED}

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
        assert tally.removed == 2
        assert await bench.index.copies(archive) is None

    play(scenario)


def test_budgets_make_room() -> None:
    async def scenario(bench: Bench) -> None:
        archives = [await bench.store(days=days) for days in (9, 8, 7)]
        gc = bench.gc(Retention(budget_bytes=25))
        results = [(r.expiry.archive, r.expiry.reason) async for r in gc.run(apply=True)]
        assert results == [(archives[0], Reason.BUDGET)]

    play(scenario)


def test_a_budget_counts_only_what_manifests_name() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store(days=9)
        old = replace(
            copies_of(archive).manifest,
            object_key=f"archives/{archive.key}/old-1/{archive.file_name}",
            size_bytes=1000,
            created_at=bench.now,
        )
        bench.storage.objects[ONE][old.object_key] = bytes(1000)
        results, tally = await bench.run(Retention(budget_bytes=10))
        assert (results, tally.excesses) == ({}, [])

    play(scenario)


def test_one_worker_runs_gc_and_repeats_it_soon_while_bytes_are_left() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        first, second = bench.collector(), bench.collector()
        with capture_logs() as lines:
            tallies = await asyncio.gather(first.collect_if_due(), second.collect_if_due())
        assert sum(tally is not None for tally in tallies) == 1
        assert [line["event"] for line in lines] == ["archive.expired", "gc.finished"]
        assert bench.schedule.due_at[WORK] <= datetime.now(UTC) + RETRY
        bench.age_tombstone(archive, GRACE)
        bench.schedule.due_at[WORK] = datetime.now(UTC)
        assert await second.collect_if_due()
        assert bench.objects(archive) == []
        assert bench.schedule.due_at[WORK] > datetime.now(UTC) + DAY / 2

    play(scenario)


def test_a_worker_waits_for_the_run_of_an_operator() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        assert await bench.schedule.begin(RUN, until=datetime.now(UTC) + HOUR)
        report = await bench.collector().collect_if_due()
        assert report
        assert not report.complete
        assert (await bench.storage.find(archive)).copies

    play(scenario)


def test_a_run_that_failed_gives_up_its_turn() -> None:
    async def scenario(bench: Bench) -> None:
        bench.storage.down.add(TWO)
        with pytest.raises(StorageUnavailable):
            await bench.collector().collect_if_due()
        assert bench.schedule.due_at[RUN] <= datetime.now(UTC)

    play(scenario)


def test_a_run_that_is_cancelled_gives_up_its_turn() -> None:
    async def scenario(bench: Bench) -> None:
        listing = asyncio.Event()

        async def hang() -> Listing:
            listing.set()
            await asyncio.Event().wait()
            raise AssertionError

        bench.storage.list_pinned = hang  # type: ignore[method-assign]
        run = asyncio.create_task(bench.collector().collect_if_due())
        await listing.wait()
        assert bench.schedule.due_at[RUN] > datetime.now(UTC)
        run.cancel()
        await asyncio.wait({run})
        assert bench.schedule.due_at[RUN] <= datetime.now(UTC)

    play(scenario)


def test_what_exceeds_a_budget_is_logged() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store(days=0)
        retention = Retention(rules=(RetentionRule(budget_bytes=4),))
        collector = Collector(
            new_gc=lambda: bench.gc(retention), schedule=bench.schedule, interval=DAY
        )
        with capture_logs() as lines:
            await collector.collect_if_due()
        over = [line for line in lines if line["event"] == "gc.over_budget"]
        assert [(line["region"], line["rule"], line["size_bytes"]) for line in over] == [
            (ONE, 1, 6),
            (TWO, 1, 6),
        ]

    play(scenario)
