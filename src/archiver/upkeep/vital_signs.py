"""Measures which parts of the fleet answer, for the metrics of this process."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from archiver.errors import EngineUnavailable
from archiver.ports.queue import Fleet, WorkerReport
from archiver.ports.stock import Stock, StockBook
from archiver.ports.storage import Storage
from archiver.telemetry import METRICS, log

INTERVAL = timedelta(seconds=30)


class VitalSigns:
    """Sets the metrics of the engine, of the workers, of the regions, and of what is stored there.

    Workers report what they can write to, since web processes may lack that right.
    """

    def __init__(
        self, *, fleet: Fleet, storage: Storage, stock_book: StockBook, process: str
    ) -> None:
        self._engine_works = METRICS.engine_works.labels(process=process)
        self._fleet = fleet
        self._storage = storage
        self._stock_book = stock_book

    async def keep_measuring(self) -> None:
        """Measure every 30 s until cancelled."""
        while True:
            try:
                await self.measure()
            except Exception:  # noqa: BLE001 - the next measurement may succeed
                log.exception("fleet.measuring_broken")
            await asyncio.sleep(INTERVAL.total_seconds())

    async def measure(self) -> None:
        """Measure once. While the engine is away, the values that it knows stay."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure_regions())
            group.create_task(self._measure_engine())

    async def _measure_regions(self) -> None:
        for region, error in (await self._storage.check_access()).items():
            METRICS.region_reachable.labels(region=region).set(error is None)

    async def _measure_engine(self) -> None:
        self._engine_works.set(await self._fleet.check_queue() is None)
        try:
            self._set_workers(await self._fleet.workers())
            self._set_stock(await self._stock_book.read())
        except EngineUnavailable as exc:
            log.debug("fleet.not_measured", code=exc.code)

    def _set_workers(self, reports: Sequence[WorkerReport]) -> None:
        draining = sum(report.draining is True for report in reports)
        METRICS.workers.labels(state="draining").set(draining)
        METRICS.workers.labels(state="active").set(len(reports) - draining)
        for region in self._storage.regions:
            answers = [report.regions[region] for report in reports if region in report.regions]
            if answers:
                METRICS.region_writable.labels(region=region).set(None in answers)

    def _set_stock(self, stock: Stock | None) -> None:
        if stock is None:
            return
        METRICS.sweep_finished.set(stock.counted_at.timestamp())
        for region in self._storage.regions:
            if counted := stock.regions.get(region):
                METRICS.archives_stored.labels(region=region).set(counted.archives)
                METRICS.stored_bytes.labels(region=region).set(counted.size_bytes)
