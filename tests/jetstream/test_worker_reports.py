"""Reports of the running workers, as another process receives them."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from archiver import __version__
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.worker_reports import Reporter
from archiver.model import Region
from archiver.ports.queue import WorkerReport
from archiver.testing import MemoryStorage
from tests.parts.fleet import HUNG_AFTER_S, Fleet

EAST, WEST = Region("one"), Region("two")


def test_each_worker_reports_the_regions_that_take_its_writes(fleet: Fleet) -> None:
    one, other = (MemoryStorage(regions=(EAST, WEST)) for _ in range(2))
    other.full.add(WEST)

    async def play() -> list[object]:
        async with fleet.connection() as web, _worker(fleet, one), _worker(fleet, other):
            reports = await heard(web, 2)
            assert {report.version for report in reports} == {__version__}
            return [report.regions[WEST] for report in reports]

    problems = asyncio.run(play())
    assert sorted(map(str, problems)) == ["None", "two rejects writes (QuotaExceeded)"]


def test_without_a_worker_there_is_no_report(fleet: Fleet) -> None:
    async def play() -> int:
        async with fleet.connection() as web:
            return len(await web.reports.request())

    assert asyncio.run(play()) == 0


def test_an_unreadable_report_still_proves_a_worker(fleet: Fleet) -> None:
    async def say() -> bytes:
        return b"\xff{"

    async def play() -> int:
        answering = connect(fleet.servers, namespace=fleet.namespace, name="test", report=say)
        async with fleet.connection() as web, answering:
            return len(await heard(web, 1))

    assert asyncio.run(play()) == 1


@pytest.mark.thorough
def test_a_slow_worker_is_waited_for(fleet: Fleet) -> None:
    async def say() -> bytes:
        await asyncio.sleep(1)
        return msgspec.json.encode(WorkerReport(name="slow", regions={WEST: None}))

    hasty = MemoryStorage(regions=(EAST, WEST))
    hasty.full.add(WEST)

    async def play() -> set[bool]:
        slow = connect(fleet.servers, namespace=fleet.namespace, name="", report=say)
        async with fleet.connection() as web, slow, _worker(fleet, hasty):
            return {bool(report.regions[WEST]) for report in await heard(web, 2)}

    assert asyncio.run(play()) == {True, False}


async def heard(web: Connection, count: int) -> Sequence[WorkerReport]:
    """Return the reports of *count* workers, which may still be connecting."""
    async with asyncio.timeout(HUNG_AFTER_S):
        while len(reports := await web.reports.request()) < count:
            await asyncio.sleep(0.02)
    return reports


def _worker(fleet: Fleet, storage: MemoryStorage) -> AbstractAsyncContextManager[Connection]:
    return connect(
        fleet.servers,
        namespace=fleet.namespace,
        name="test",
        report=Reporter(storage=storage).answer,
    )
