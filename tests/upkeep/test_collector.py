"""One worker of the fleet runs gc at a time, and reports."""

import asyncio
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable
from archiver.ports.schedule import Turn
from archiver.ports.storage import Listing
from archiver.retention import Retention, RetentionRule
from archiver.testing import MemorySchedule
from archiver.upkeep.collector import RUN, WORK, Collector
from archiver.upkeep.periodic import RETRY
from tests.upkeep.gc_bench import DAY, GRACE, HOUR, ONE, TWO, Bench, play


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


class RemoteSchedule(MemorySchedule):
    """Its answers arrive later than their effects, as those of an engine do."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    async def postpone(self, turn: Turn, *, until: datetime) -> Turn | None:
        taken = await super().postpone(turn, until=until)
        self.changed.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return taken


@pytest.mark.parametrize(("work", "changes"), ((WORK, 1), (RUN, 2)))
def test_a_worker_that_stops_while_it_takes_a_turn_gives_it_up(work: str, changes: int) -> None:
    """Otherwise no other worker would run gc for as long as a turn."""

    async def scenario(bench: Bench) -> None:
        bench.schedule = schedule = RemoteSchedule()
        run = asyncio.create_task(bench.collector().collect_if_due())
        for _ in range(changes):
            await schedule.changed.wait()
            schedule.changed.clear()
        run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
        assert schedule.due_at[work] <= datetime.now(UTC)

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
