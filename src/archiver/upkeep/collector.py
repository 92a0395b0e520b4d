"""Runs gc from time to time, in one worker of the fleet."""

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from archiver.ports.schedule import Schedule
from archiver.telemetry import METRICS, log
from archiver.upkeep.gc import Gc, GcTally
from archiver.upkeep.periodic import TURN, Periodic

WORK = "gc"

RUN = "gc-run"
"""The turn of one run, whether a worker or an operator started it."""


@dataclass(frozen=True, slots=True)
class _Busy:
    """Another run is under way."""

    complete: bool = False


def exclusive(schedule: Schedule, *, turn: timedelta = TURN) -> Periodic:
    """Return what lets one run go on at a time: two would overwrite each other's tombstones."""
    return Periodic(schedule=schedule, work=RUN, interval=timedelta(0), turn=turn)


class Collector:
    """Runs gc if that is due. Each worker has one, and the schedule chooses."""

    def __init__(
        self, *, new_gc: Callable[[], Gc], schedule: Schedule, interval: timedelta
    ) -> None:
        self._new_gc = new_gc
        self._periodic = Periodic(schedule=schedule, work=WORK, interval=interval)
        self._exclusive = exclusive(schedule)

    async def keep_collecting(self) -> None:
        """Run gc whenever it is due, until cancelled."""
        await self._periodic.keep_running(self._collect_alone)

    async def collect_if_due(self) -> GcTally | _Busy | None:
        """Return the results of a run; None if none is due.

        Raises:
            EngineUnavailable: It is unknown whether a run is due.
            StorageUnavailable: A region did not list its bucket.
        """
        return await self._periodic.run_if_due(self._collect_alone)

    async def _collect_alone(self) -> GcTally | _Busy:
        return await self._exclusive.run_if_due(self._collect) or _Busy()

    async def _collect(self) -> GcTally:
        started = time.monotonic()
        gc = self._new_gc()
        async with aclosing(gc.run(apply=True)) as results:
            async for _ in results:
                pass
        _report(gc.tally, time.monotonic() - started)
        return gc.tally


def _report(tally: GcTally, duration_s: float) -> None:
    for excess in tally.excesses:
        log.warning(
            "gc.over_budget", region=excess.region, rule=excess.rule, size_bytes=excess.size_bytes
        )
    METRICS.gc_finished.set_to_current_time()
    log.info(
        "gc.finished",
        duration_s=round(duration_s, 3),
        archives=tally.archives,
        expired=tally.expired,
        kept=tally.kept,
        unanswered=tally.unanswered,
        removed=tally.removed,
        removed_bytes=tally.removed_bytes,
    )
