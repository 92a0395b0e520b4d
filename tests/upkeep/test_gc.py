"""Archives expire, and leave tombstones."""

from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Manifest, Pin, Region, Tombstone
from archiver.pins import Pins
from archiver.retention import Retention
from archiver.testing import (
    MemoryLastUses,
)
from archiver.upkeep.expiry import Kept
from archiver.upkeep.expiry_plan import Reason
from archiver.upkeep.gc import Outcome
from tests.parts.fleet import copies_of
from tests.upkeep.gc_bench import DAY, ONE, TWO, Bench, play


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
        assert results == {late: Kept.PINNED}
        assert (await bench.storage.find(late)).copies
        assert (await bench.storage.find(listed)).copies
        assert tally.kept == 1

    play(scenario)


@pytest.mark.parametrize("steps_late", (False, True))
def test_a_pin_that_is_confirmed_during_an_expiry_holds(*, steps_late: bool) -> None:
    """It is written before the manifests go or, if the run was frozen then, while they go."""

    async def scenario(bench: Bench) -> None:
        archive, pins = await bench.store(), Pins(storage=bench.storage)
        withdraw = bench.storage.withdraw

        async def pin_meanwhile(
            archive: Archive, manifest: Manifest
        ) -> dict[Region, StorageUnavailable]:
            if steps_late:
                del bench.storage.manifests[ONE][archive.key]
            assert await pins.pin(archive, principal="x", reason="y")
            return dict(await withdraw(archive, manifest))

        bench.storage.withdraw = pin_meanwhile  # type: ignore[method-assign]
        results, tally = await bench.run()
        assert results == {archive: Kept.PINNED}
        copies = (await bench.storage.find(archive)).copies
        assert copies
        assert copies.regions == (ONE, TWO)
        assert await bench.index.copies(archive) == copies
        assert tally.complete

    play(scenario)


def test_an_archive_whose_manifests_are_gone_cannot_be_pinned() -> None:
    async def scenario(bench: Bench) -> None:
        archive, pins = await bench.store(), Pins(storage=bench.storage)
        forget = bench.engine.forget

        async def pin_meanwhile(archive: Archive) -> None:
            assert not await pins.pin(archive, principal="x", reason="y")
            await forget(archive)

        bench.engine.forget = pin_meanwhile  # type: ignore[method-assign]
        assert (await bench.run())[0] == {archive: Outcome.EXPIRED}

    play(scenario)


@pytest.mark.parametrize("looks", (0, 1))
def test_an_archive_whose_pin_is_in_a_silent_region_stays(looks: int) -> None:
    """The region falls silent before a look at the pin: before or after the manifests are gone."""

    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        pin = Pin(principal="x", reason="y", created_at=bench.now)
        read, left = bench.storage.read_pin, iter(range(looks))

        async def read_later(archive: Archive, *, certain: bool = False) -> Pin | None:
            if next(left, None) is None:
                bench.storage.pins[TWO][archive.key] = pin
                bench.storage.down.add(TWO)
            try:
                return await read(archive, certain=certain)
            finally:
                bench.storage.down.clear()

        bench.storage.read_pin = read_later  # type: ignore[method-assign]
        results, _ = await bench.run()
        assert results == {archive: Outcome.UNANSWERED}
        assert (await bench.storage.find(archive)).copies

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
        assert results == {archive: Kept.PURGED}
        assert bench.storage.marks[ONE] == {archive.key: "p1"}
        assert await bench.storage.read_tombstone(archive) is None

    play(scenario)


def test_a_purge_that_ended_meanwhile_leaves_no_tombstone() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        put = bench.storage.put_tombstone

        async def purge_before(
            archive: Archive, tombstone: Tombstone
        ) -> dict[Region, StorageUnavailable]:
            await bench.storage.begin_purge(archive, purge="p1")
            await bench.storage.end_purge(archive, purge="p1")
            return dict(await put(archive, tombstone))

        bench.storage.put_tombstone = purge_before  # type: ignore[method-assign]
        assert (await bench.run())[0] == {archive: Kept.PURGED}
        assert await bench.storage.read_tombstone(archive) is None

    play(scenario)


def test_a_run_that_was_overtaken_by_another_leaves_its_tombstone() -> None:
    """It was frozen for longer than its turn, or the engine lost the turn."""

    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        put = bench.storage.put_tombstone

        async def overtake(
            archive: Archive, tombstone: Tombstone
        ) -> dict[Region, StorageUnavailable]:
            bench.storage.put_tombstone = put  # type: ignore[method-assign]
            assert (await bench.run())[0] == {archive: Outcome.EXPIRED}
            return dict(await put(archive, tombstone))

        bench.storage.put_tombstone = overtake  # type: ignore[method-assign]
        assert (await bench.run())[0] == {archive: Kept.PURGED}
        assert await bench.storage.read_tombstone(archive)
        assert len(bench.objects(archive)) == 2

    play(scenario)


def test_an_archive_that_was_built_again_stays() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        manifest = replace(bench.storage.manifests[ONE][archive.key], created_at=bench.now)
        for region in (ONE, TWO):
            bench.storage.manifests[region][archive.key] = manifest
        assert (await bench.run())[0] == {archive: Kept.REBUILT}

    play(scenario)


def test_regions_that_disagree_are_left_to_the_operator() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        manifests = bench.storage.manifests[TWO]
        manifests[archive.key] = replace(manifests[archive.key], sha256="1" * 64)
        assert (await bench.run())[0] == {archive: Kept.DIFFERENT}

    play(scenario)


def test_a_damaged_manifest_is_left_to_the_operator() -> None:
    async def scenario(bench: Bench) -> None:
        archive = await bench.store()
        read = bench.storage.contents.read_manifest

        async def find_damage(region: Region, archive: Archive) -> Manifest | None:
            if region == TWO:
                raise UnreadableManifest("damaged")
            return await read(region, archive)

        bench.storage.contents.read_manifest = find_damage  # type: ignore[method-assign]
        expired = await bench.expirer.expire(archive, last_use=bench.now.date())
        assert expired is Kept.UNREADABLE

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
