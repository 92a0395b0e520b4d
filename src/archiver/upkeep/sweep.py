"""Removes, periodically, what killed processes left in the buckets."""

import asyncio
import random
import time
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from archiver.errors import (
    EngineUnavailable,
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.model import Region
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.schedule import Schedule
from archiver.ports.storage import Storage
from archiver.runtime.tasks import concurrently
from archiver.telemetry import METRICS, log
from archiver.upkeep.inventory import Inventory
from archiver.upkeep.leftovers import Leftovers, Orphan

WORK = "sweep"

TURN = timedelta(minutes=10)
"""How long a sweep that has died keeps its turn."""

POLL_MAX = timedelta(minutes=10)
"""How often each worker looks whether a sweep is due."""

RETRY = timedelta(hours=1)
"""When a sweep that failed is due again, unless sweeps are more frequent."""

JITTER = 0.1

ORPHANS_MAX = 10_000
"""Orphans that one sweep removes. They are held until the listings end."""

ORPHANS_FEW = 10
"""Beyond these, a sweep removes only fewer objects than it keeps. More mean that manifests were
deleted, rather than that builds failed; the objects may be all that is left."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """The removals of one sweep, and the number of archives with a manifest that it saw.

    ``complete`` is false if something that should go is still there.
    """

    archives: int = 0
    objects: int = 0
    size_bytes: int = 0
    uploads: int = 0
    complete: bool = True


class Sweeper:
    """Sweeps the buckets if that is due. Each worker has one, and the schedule chooses."""

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        schedule: Schedule,
        interval: timedelta,
        min_age: timedelta,
        turn: timedelta = TURN,
    ) -> None:
        self._contents = contents
        self._schedule = schedule
        self._interval = interval
        self._turn = turn
        self._leftovers = Leftovers(storage=storage, contents=contents, min_age=min_age)

    async def keep_sweeping(self) -> None:
        """Sweep whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(_jittered(min(POLL_MAX, self._interval)).total_seconds())
            try:
                await self.sweep_if_due()
            except EngineUnavailable as exc:
                log.debug("sweep.not_scheduled", code=exc.code)
            except Exception:  # noqa: BLE001 - the next sweep may succeed
                log.exception("sweep.broken")

    async def sweep_if_due(self) -> Sweep | None:
        """Return what a sweep removed, or None if none is due.

        A process that loses its turn, because it was frozen, stops its sweep.

        Raises:
            EngineUnavailable: It is unknown whether a sweep is due.
        """
        turn = await self._schedule.begin(WORK, until=_after(self._turn))
        if turn is None:
            return None
        started = time.monotonic()
        async with concurrently(self.sweep()) as sweeping:
            while not sweeping.done():
                await asyncio.wait([sweeping], timeout=self._turn.total_seconds() / 3)
                turn = await self._schedule.postpone(turn, until=_after(self._turn))
                if turn is None:
                    log.warning("sweep.lost")
                    return None
            sweep = await sweeping
        pause = self._interval if sweep.complete else min(RETRY, self._interval)
        await self._schedule.postpone(turn, until=_after(_jittered(pause)))
        _report(sweep, time.monotonic() - started)
        return sweep

    async def sweep(self) -> Sweep:
        """Remove old unfinished uploads, and old objects that no manifest names.

        The latter needs the listings of all regions.
        """
        sweep = Sweep()
        for region in self._contents.regions:
            try:
                await self._abort_uploads(region, sweep)
            except StorageUnavailable as exc:
                sweep.complete = False
                log.warning("sweep.uploads_left", region=region, **exc.log_fields)
        try:
            orphans = await self._find_orphans(sweep)
            await self._remove(orphans, sweep)
        except StorageUnavailable as exc:
            sweep.complete = False
            log.warning("sweep.objects_left", reason=exc.message, **exc.log_fields)
        return sweep

    async def _abort_uploads(self, region: Region, sweep: Sweep) -> None:
        async with aclosing(self._leftovers.iter_unfinished(region)) as unfinished:
            uploads = [upload async for upload in unfinished]
        for upload in uploads:
            await self._contents.abort_upload(region, upload)
            sweep.uploads += 1
            METRICS.sweep_removals.labels(kind="unfinished").inc()

    async def _find_orphans(self, sweep: Sweep) -> list[Orphan]:
        inventory = Inventory(contents=self._contents)
        await inventory.survey()
        orphans: list[Orphan] = []
        async with aclosing(inventory.archives()) as archives:
            async for listed in archives:
                sweep.archives += bool(listed.manifests)
                with suppress(PurgeUnfinished, UnreadableManifest):
                    orphans += await self._leftovers.find_orphans(listed)
                if len(orphans) >= ORPHANS_MAX:
                    sweep.complete = False
                    break
        return orphans

    async def _remove(self, orphans: list[Orphan], sweep: Sweep) -> None:
        if len(orphans) > max(ORPHANS_FEW, sweep.archives):
            log.error("sweep.refused", objects=len(orphans), archives=sweep.archives)
            return
        for orphan in orphans:
            if await self._leftovers.remove(orphan):
                size_bytes = orphan.stored.size_bytes
                sweep.objects += 1
                sweep.size_bytes += size_bytes
                METRICS.sweep_removals.labels(kind="orphan").inc()
                METRICS.sweep_removed_bytes.inc(size_bytes)


def _report(sweep: Sweep, duration_s: float) -> None:
    METRICS.sweep_finished.set_to_current_time()
    log.info("sweep.finished", duration_s=round(duration_s, 3), **asdict(sweep))


def _after(delay: timedelta) -> datetime:
    return datetime.now(UTC) + delay


def _jittered(delay: timedelta) -> timedelta:
    """Return *delay*, a little shorter, so that the workers of a fleet do not act as one."""
    return delay * random.uniform(1 - JITTER, 1)  # noqa: S311 - no secret
