"""Creates tasks for archives that lack a copy, once the missing region answers."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from archiver.errors import EngineUnavailable
from archiver.model import Region
from archiver.ports.queue import Repair, RepairList, TaskQueue
from archiver.ports.storage import Storage
from archiver.tasks import Priority
from archiver.telemetry import METRICS, log

DOUBLINGS_MAX = 7
"""From the usual 30 s to about an hour, for a copy that fails although its region answers."""

POSTPONED_MAX = timedelta(days=30) - timedelta(hours=1)
"""A repair list takes no entry that is due in more than 30 days, by any clock of the fleet."""


class Repairer:
    """Sweeps the repair list. Workers do so independently: the queue joins their tasks."""

    def __init__(
        self, *, repairs: RepairList, queue: TaskQueue, storage: Storage, interval: timedelta
    ) -> None:
        self._repairs = repairs
        self._queue = queue
        self._storage = storage
        self._interval = interval

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.sweep()
            except EngineUnavailable as exc:
                log.debug("repairs.not_swept", code=exc.code)
            except Exception:  # noqa: BLE001 - the next sweep may succeed
                log.exception("repairs.broken")

    async def sweep(self) -> None:
        """Create a task for each archive that is due and lacks a copy in a region that answers.

        Raises:
            EngineUnavailable: Not all entries were read.
        """
        healthy: set[Region] | None = None
        async with aclosing(self._repairs.due()) as repairs:
            async for repair in repairs:
                if healthy is None:
                    answers = await self._storage.check_access()
                    healthy = {region for region, error in answers.items() if error is None}
                if healthy.intersection(repair.missing):
                    await self._enqueue(repair)
        for region in self._storage.regions:
            METRICS.copies_lacking.labels(region=region).set(self._repairs.lacking.get(region, 0))

    async def _enqueue(self, repair: Repair) -> None:
        """Postpone *repair* first: its task may end and remove it before ``enqueue`` returns."""
        try:
            if await self._repairs.postpone(repair, until=self._next_try(repair)):
                await self._queue.enqueue(repair.archive, priority=Priority.LOW)
        except EngineUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one entry must not end the repairs of all others
            log.exception("repair.broken", digest=repair.archive.key_hash)

    def _next_try(self, repair: Repair) -> datetime:
        delay = self._interval * (1 << min(repair.tries, DOUBLINGS_MAX))
        return datetime.now(UTC) + min(delay, POSTPONED_MAX)
