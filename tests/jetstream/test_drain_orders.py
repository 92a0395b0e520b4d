"""Orders to drain, as workers of the fleet receive them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from archiver.jetstream.connection import connect
from archiver.jetstream.worker_reports import Reporter, parse_report
from archiver.testing import MemoryStorage
from archiver.worker.activity import Activity
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive

STRANGE = ("*", ">", "a.b", "host:1 2", "hôte:1", "", "\n", "x" * 5000)


@asynccontextmanager
async def worker(fleet: Fleet, activity: Activity, name: str) -> AsyncIterator[None]:
    """Run the part of a worker that receives orders, once the server knows of it."""
    reporter = Reporter(storage=MemoryStorage(), activity=activity)
    opening = connect(
        fleet.servers,
        namespace=fleet.namespace,
        name="test",
        report=reporter.answer,
        drains=(name, reporter.obey),
    )
    async with opening as connection:
        await connection.link.client.flush()
        yield


def test_a_worker_drains_by_its_name_and_says_what_it_runs(fleet: Fleet) -> None:
    archive = an_archive()

    async def play() -> None:
        one, other = Activity(), Activity()
        async with (
            fleet.connection() as operator,
            worker(fleet, one, "host.example:1"),
            worker(fleet, other, "host.example:2"),
        ):
            with one.attempt(archive):
                before = await operator.drains.look_up("host.example:1")
                assert before
                assert (before.draining, before.running) == (False, (archive.task_id,))
                after = await operator.drains.drain("host.example:1")
            assert after
            assert after.draining
            assert one.draining.is_set()
            assert not other.draining.is_set()
            reports = await operator.reports.request()
            assert sorted(bool(report.draining) for report in reports) == [False, True]

    asyncio.run(play())


@pytest.mark.parametrize("name", STRANGE)
def test_a_name_reaches_no_other_worker(fleet: Fleet, name: str) -> None:
    async def play() -> None:
        activity = Activity()
        async with fleet.connection() as operator, worker(fleet, activity, "host:1"):
            assert await operator.drains.drain(name) is None
            assert not activity.draining.is_set()

    asyncio.run(play())


def test_a_worker_that_has_gone_is_noticed(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as operator:
            async with worker(fleet, Activity(), "host:1"):
                assert await operator.drains.look_up("host:1")
            async with asyncio.timeout(HUNG_AFTER_S):
                while await operator.drains.look_up("host:1"):
                    await asyncio.sleep(0.02)

    asyncio.run(play())


def test_a_report_of_an_earlier_release_says_nothing_of_draining() -> None:
    report = parse_report(b'{"name": "host:1", "regions": {}}')

    assert (report.draining, report.running) == (None, ())


def test_a_report_of_a_later_release_may_say_more() -> None:
    report = parse_report(b'{"name": "host:1", "regions": {}, "draining": true, "mood": ["calm"]}')

    assert (report.name, report.draining) == ("host:1", True)
