"""The metrics of the workers, of the regions and of what they store."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client import REGISTRY

from archiver.model import Region
from archiver.ports.queue import WorkerReport
from archiver.ports.stock import RegionStock, Stock
from archiver.testing import MemoryEngine, MemoryStockBook, MemoryStorage
from archiver.upkeep.vital_signs import VitalSigns

ONE, TWO = Region("one"), Region("two")
NOW = datetime(2026, 11, 28, tzinfo=UTC)


class Bench:
    def __init__(self) -> None:
        self.engine, self.book = MemoryEngine(), MemoryStockBook()
        self.storage = MemoryStorage(regions=(ONE, TWO))

    def measure(self, *reports: WorkerReport) -> None:
        self.engine.reports = list(reports)
        signs = VitalSigns(
            fleet=self.engine, storage=self.storage, stock_book=self.book, process="web"
        )
        asyncio.run(signs.measure())


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"archiver_{name}", labels)


def of_regions(name: str) -> Sequence[float | None]:
    return [value(name, region=region) for region in (ONE, TWO)]


def test_workers_are_counted_by_their_state() -> None:
    report = WorkerReport(name="a", regions={})
    draining = WorkerReport(name="b", regions={}, draining=True)
    bench = Bench()
    bench.measure(report, report, draining)
    assert [value("workers", state=state) for state in ("active", "draining")] == [2, 1]
    bench.measure()
    assert [value("workers", state=state) for state in ("active", "draining")] == [0, 0]


def test_a_region_is_writable_if_one_worker_can_write_there() -> None:
    bench = Bench()
    able, unable = ({ONE: None, TWO: "AccessDenied"}, {ONE: "AccessDenied", TWO: "AccessDenied"})
    bench.measure(WorkerReport(name="a", regions=able), WorkerReport(name="b", regions=unable))
    assert of_regions("region_writable") == [1, 0]
    bench.measure()  # no worker knows
    assert of_regions("region_writable") == [1, 0]


def test_a_region_that_does_not_answer_is_not_reachable() -> None:
    bench = Bench()
    bench.storage.down.add(TWO)
    bench.measure()
    assert of_regions("region_reachable") == [1, 0]
    bench.storage.down.clear()
    bench.measure()
    assert of_regions("region_reachable") == [1, 1]


def test_the_last_count_of_what_is_stored_is_shown_by_every_process() -> None:
    bench = Bench()
    stock = {
        ONE: RegionStock(archives=3, size_bytes=7),
        Region("gone"): RegionStock(archives=1, size_bytes=1),
    }
    asyncio.run(bench.book.write(Stock(counted_at=NOW, regions=stock)))
    bench.measure()
    assert of_regions("archives_stored")[0] == 3
    assert of_regions("stored_bytes")[0] == 7
    assert value("archives_stored", region="gone") is None
    assert value("sweep_finished_timestamp_seconds") == NOW.timestamp()


def test_without_the_engine_the_regions_are_measured_all_the_same() -> None:
    bench = Bench()
    bench.measure(WorkerReport(name="a", regions={}))
    assert value("engine_works", process="web") == 1
    bench.engine.down, bench.book.down = True, True
    bench.storage.down.add(ONE)
    bench.measure()
    assert of_regions("region_reachable") == [0, 1]
    assert value("workers", state="active") == 1
    assert value("engine_works", process="web") == 0
