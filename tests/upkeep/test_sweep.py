"""Sweeps remove what killed processes left, one worker at a time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.model import Archive, Pin, Region
from archiver.ports.bucket_contents import UnfinishedUpload
from archiver.ports.stock import RegionStock
from archiver.purge import Forgetter
from archiver.testing import (
    MemoryEngine,
    MemoryIndex,
    MemorySchedule,
    MemoryStockBook,
    MemoryStorage,
)
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.periodic import RETRY
from archiver.upkeep.sweep import ORPHANS_FEW, WORK, Sweep, Sweeper
from tests.parts.fleet import an_archive, copies_of

ONE, TWO = Region("one"), Region("two")
DAY = timedelta(days=1)
GRACE = timedelta(hours=2)
DATA = b"bytes"


class Bench:
    def __init__(self) -> None:
        self.storage = MemoryStorage(regions=(ONE, TWO))
        self.schedule = MemorySchedule()
        self.stock_book = MemoryStockBook()
        engine = MemoryEngine()
        self.expirer = Expirer(
            storage=self.storage,
            contents=self.storage.contents,
            forgetter=Forgetter(
                index=MemoryIndex(storage=self.storage), queue=engine, repairs=engine
            ),
            grace=GRACE,
        )

    def sweeper(self, *, interval: timedelta = DAY, turn: timedelta = DAY) -> Sweeper:
        return Sweeper(
            storage=self.storage,
            contents=self.storage.contents,
            schedule=self.schedule,
            stock_book=self.stock_book,
            expirer=self.expirer,
            interval=interval,
            min_age=DAY,
            turn=turn,
        )

    def commit(self, archive: Archive, *regions: Region) -> str:
        copies = copies_of(archive, *regions)
        for region in regions:
            self.storage.manifests[region][archive.key] = copies.manifest
            self._put(region, copies.manifest.object_key, size_bytes=copies.manifest.size_bytes)
        return copies.manifest.object_key

    def leave(self, archive: Archive, region: Region, *, age: timedelta = 2 * DAY) -> str:
        object_key = f"archives/{archive.key}/lost-1/{archive.file_name}"
        self._put(region, object_key, age=age)
        return object_key

    def _put(
        self, region: Region, object_key: str, *, age: timedelta = 2 * DAY, size_bytes: int = 5
    ) -> None:
        self.storage.objects[region][object_key] = bytes(size_bytes)
        self.storage.contents.modified_at[object_key] = datetime.now(UTC) - age

    def begin_upload(self, region: Region, age: timedelta) -> None:
        key, at = f"archives/{an_archive().key}/a1/x.zip", datetime.now(UTC) - age
        upload = UnfinishedUpload(object_key=key, upload_id="x", initiated_at=at)
        self.storage.contents.uploads[region].append(upload)


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Bench())

    asyncio.run(run())


def test_a_sweep_removes_what_is_old_and_unnamed() -> None:
    async def scenario(bench: Bench) -> None:
        archive, building = an_archive(), an_archive()
        kept = {bench.commit(archive, ONE, TWO), bench.leave(building, ONE, age=DAY / 2)}
        bench.leave(archive, ONE)
        bench.leave(an_archive(), TWO)
        bench.begin_upload(ONE, 2 * DAY)
        bench.begin_upload(TWO, DAY / 2)
        bench.storage.objects[TWO]["notes.txt"] = DATA
        sweep = await bench.sweeper().sweep_if_due()
        assert sweep == Sweep(archives=1, objects=2, size_bytes=10, uploads=1)
        left = {key for objects in bench.storage.objects.values() for key in objects}
        assert left == {*kept, "notes.txt"}
        assert [len(bench.storage.contents.uploads[region]) for region in (ONE, TWO)] == [0, 1]

    play(scenario)


def test_an_object_that_a_manifest_names_in_another_region_stays() -> None:
    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        named = bench.commit(archive, ONE)
        bench.storage.objects[TWO][named] = bytes(1)
        left = bench.leave(archive, TWO)
        assert await bench.sweeper().sweep() == Sweep(archives=1, objects=1, size_bytes=5)
        assert list(bench.storage.objects[TWO]) == [named]
        assert left not in bench.storage.objects[TWO]

    play(scenario)


def test_a_sweep_counts_what_each_region_has() -> None:
    async def scenario(bench: Bench) -> None:
        bench.commit(an_archive(), ONE, TWO)
        bench.commit(an_archive(), ONE)
        for down in (True, False):
            bench.stock_book.down = down
            assert (await bench.sweeper().sweep()).complete
        stock = await bench.stock_book.read()
        assert stock
        assert stock.regions == {
            ONE: RegionStock(archives=2, size_bytes=2),
            TWO: RegionStock(archives=1, size_bytes=1),
        }

    play(scenario)


def test_objects_of_a_lost_archive_stay() -> None:
    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        named = bench.commit(archive, ONE, TWO)
        for region in (ONE, TWO):
            del bench.storage.objects[region][named]
            bench.leave(archive, region)
            bench.storage.objects[region][f"archives/{archive.key}/y-1/x.zip"] = DATA
        assert await bench.sweeper().sweep() == Sweep(archives=1)

    play(scenario)


def test_objects_beside_a_damaged_manifest_stay() -> None:
    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        bench.commit(archive, ONE, TWO)
        bench.leave(archive, ONE)
        bench.storage.unreadable.add(archive)
        assert await bench.sweeper().sweep() == Sweep(archives=1)

    play(scenario)


def test_a_region_that_does_not_answer_keeps_all_objects() -> None:
    async def scenario(bench: Bench) -> None:
        left = bench.leave(an_archive(), ONE)
        bench.begin_upload(ONE, 2 * DAY)
        bench.storage.down.add(TWO)
        with capture_logs() as logs:
            sweep = await bench.sweeper().sweep_if_due()
        assert sweep == Sweep(uploads=1, complete=False)
        assert left in bench.storage.objects[ONE]
        events = [line["event"] for line in logs]
        assert events == [
            "sweep.uploads_left",
            "sweep.pins_left",
            "sweep.objects_left",
            "sweep.finished",
        ]
        assert bench.schedule.due_at[WORK] <= datetime.now(UTC) + RETRY

    play(scenario)


def test_the_objects_of_a_pinned_archive_stay() -> None:
    """Its manifests may have been deleted by accident, and the objects are all that is left."""

    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        left = bench.leave(archive, ONE)
        pin = Pin(principal="cli", reason="kept", created_at=datetime.now(UTC))
        await bench.storage.put_pin(archive, pin)
        await bench.sweeper().sweep()
        assert left in bench.storage.objects[ONE]
        await bench.storage.remove_pin(archive)
        await bench.sweeper().sweep()
        assert left not in bench.storage.objects[ONE]

    play(scenario)


def test_a_sweep_spreads_the_pins() -> None:
    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        bench.commit(archive, ONE, TWO)
        pin = Pin(principal="cli", reason="kept", created_at=datetime.now(UTC))
        bench.storage.pins[ONE][archive.key] = pin
        bench.storage.down.add(TWO)
        silent = await bench.sweeper().sweep()
        assert (silent.pins, silent.complete) == (0, False)
        bench.storage.down.clear()
        swept = await bench.sweeper().sweep()
        assert (swept.pins, swept.complete) == (1, True)
        assert bench.storage.pins[TWO] == {archive.key: pin}

    play(scenario)


def test_a_sweep_of_more_objects_than_archives_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(ORPHANS_FEW + 1):
            bench.leave(an_archive(), ONE)
        with capture_logs() as logs:
            assert await bench.sweeper().sweep() == Sweep()
        assert [line["event"] for line in logs] == ["sweep.refused"]
        assert len(bench.storage.objects[ONE]) == ORPHANS_FEW + 1

    play(scenario)


def test_one_worker_sweeps_and_the_next_sweep_waits() -> None:
    async def scenario(bench: Bench) -> None:
        first, second = bench.sweeper(), bench.sweeper()
        sweeps = await asyncio.gather(first.sweep_if_due(), second.sweep_if_due())
        assert sum(sweep is not None for sweep in sweeps) == 1
        assert await first.sweep_if_due() is None
        wait = bench.schedule.due_at[WORK] - datetime.now(UTC)
        assert DAY / 2 < wait <= DAY
        bench.schedule.due_at[WORK] = datetime.now(UTC)
        assert await second.sweep_if_due() == Sweep()

    play(scenario)


def test_a_sweep_that_died_is_taken_over() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.schedule.begin(WORK, until=datetime.now(UTC) - DAY)
        assert await bench.sweeper().sweep_if_due() == Sweep()

    play(scenario)


def test_a_sweep_whose_turn_was_taken_stops() -> None:
    async def scenario(bench: Bench) -> None:
        left = bench.leave(an_archive(), ONE)
        removing = bench.sweeper(turn=timedelta(0))

        async def take_over() -> None:
            bench.schedule.due_at[WORK] = datetime.now(UTC)
            assert await bench.schedule.begin(WORK, until=datetime.now(UTC) + DAY)

        listing = bench.storage.contents.iter_uploads

        async def steal_first(
            region: Region, source: str | None = None
        ) -> AsyncGenerator[UnfinishedUpload, None]:
            await take_over()
            await asyncio.Event().wait()
            async for upload in listing(region, source):
                yield upload

        bench.storage.contents.iter_uploads = steal_first  # type: ignore[method-assign]
        assert await removing.sweep_if_due() is None
        assert left in bench.storage.objects[ONE]

    play(scenario)


def test_without_an_engine_nothing_is_swept() -> None:
    async def scenario(bench: Bench) -> None:
        left = bench.leave(an_archive(), ONE)
        bench.schedule.down = True
        with pytest.raises(EngineUnavailable):
            await bench.sweeper().sweep_if_due()
        assert left in bench.storage.objects[ONE]

    play(scenario)
