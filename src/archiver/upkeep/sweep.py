"""Removes, periodically, what killed processes left in the buckets."""

import time
from collections.abc import Mapping
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
from archiver.ports.stock import RegionStock, Stock, StockBook
from archiver.ports.storage import Storage
from archiver.telemetry import METRICS, log
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.inventory import Counts, Inventory
from archiver.upkeep.leftovers import Leftovers, Orphan
from archiver.upkeep.periodic import TURN, Periodic

WORK = "sweep"

ORPHANS_MAX = 10_000
"""Orphans that one sweep removes. They are held until the listings end."""

ORPHANS_FEW = 10
"""Beyond these, a sweep removes only fewer objects than it keeps. More mean that manifests were
deleted, rather than that builds failed; the objects may be all that is left."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """The removals of one sweep, and the number of archives with a manifest that it saw.

    ``pins`` were copied to regions that lacked them.

    ``complete`` is false if something that should go is still there.
    """

    archives: int = 0
    objects: int = 0
    size_bytes: int = 0
    uploads: int = 0
    pins: int = 0
    complete: bool = True


class Sweeper:
    """Sweeps the buckets if that is due. Each worker has one, and the schedule chooses."""

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        schedule: Schedule,
        stock_book: StockBook,
        expirer: Expirer,
        interval: timedelta,
        min_age: timedelta,
        turn: timedelta = TURN,
    ) -> None:
        self._storage = storage
        self._contents = contents
        self._expirer = expirer
        self._stock_book = stock_book
        self._periodic = Periodic(schedule=schedule, work=WORK, interval=interval, turn=turn)
        self._leftovers = Leftovers(storage=storage, contents=contents, min_age=min_age)

    async def keep_sweeping(self) -> None:
        """Sweep whenever it is due, until cancelled."""
        await self._periodic.keep_running(self._sweep_and_report)

    async def sweep_if_due(self) -> Sweep | None:
        """Return what a sweep removed, or None if none is due.

        Raises:
            EngineUnavailable: It is unknown whether a sweep is due.
        """
        return await self._periodic.run_if_due(self._sweep_and_report)

    async def _sweep_and_report(self) -> Sweep:
        started = time.monotonic()
        sweep = await self.sweep()
        METRICS.sweep_finished.set_to_current_time()
        duration_s = round(time.monotonic() - started, 3)
        log.info("sweep.finished", duration_s=duration_s, **asdict(sweep))
        return sweep

    async def sweep(self) -> Sweep:
        """Remove old unfinished uploads, and old objects that no manifest names. Spread the pins.

        All but the uploads needs the listings of all regions.
        """
        sweep = Sweep()
        for region in self._contents.regions:
            try:
                await self._abort_uploads(region, sweep)
            except StorageUnavailable as exc:
                sweep.complete = False
                log.warning("sweep.uploads_left", region=region, **exc.log_fields)
        await self._spread_pins(sweep)
        try:
            orphans = await self._find_orphans(sweep)
            await self._remove(orphans, sweep)
        except (StorageUnavailable, EngineUnavailable) as exc:
            sweep.complete = False
            log.warning("sweep.objects_left", reason=exc.message, **exc.log_fields)
        return sweep

    async def _spread_pins(self, sweep: Sweep) -> None:
        """Have a pin hold although the only region that had it does not answer."""
        try:
            sweep.pins = await self._storage.spread_pins()
        except StorageUnavailable as exc:
            sweep.complete = False
            log.warning("sweep.pins_left", reason=exc.message, **exc.log_fields)

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
        await self._record(inventory.counts)
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

    async def _record(self, counts: Mapping[Region, Counts]) -> None:
        regions = {
            region: RegionStock(archives=each.manifests, size_bytes=each.size_bytes)
            for region, each in counts.items()
        }
        try:
            await self._stock_book.write(Stock(counted_at=datetime.now(UTC), regions=regions))
        except EngineUnavailable as exc:
            log.debug("stock.not_written", code=exc.code)

    async def _remove(self, orphans: list[Orphan], sweep: Sweep) -> None:
        unexpected = sum(orphan.tombstone is None for orphan in orphans)
        if unexpected > max(ORPHANS_FEW, sweep.archives):
            log.error("sweep.refused", objects=unexpected, archives=sweep.archives)
            return
        for orphan in orphans:
            remove = self._expirer.remove_bytes if orphan.tombstone else self._leftovers.remove
            if await remove(orphan):
                size_bytes = orphan.stored.size_bytes
                sweep.objects += 1
                sweep.size_bytes += size_bytes
                kind = "expired" if orphan.tombstone else "orphan"
                METRICS.sweep_removals.labels(kind=kind).inc()
                METRICS.sweep_removed_bytes.inc(size_bytes)
