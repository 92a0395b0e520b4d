"""The metrics of the queue, on a real server."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from archiver.jetstream.connection import Connection
from archiver.jetstream.queue_gauges import QueueGauges
from archiver.jetstream.records import Order, encode
from archiver.jetstream.task_subject import DEFERRED, PARKED, client_token
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.tasks import LIGHT_MAX, Priority, Urgency
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive, copies_of

SOURCE = "hgmo"
HOUR = timedelta(hours=1)


def tasks(state: str = "waiting") -> Mapping[str, float]:
    lanes = (*Priority, PARKED, DEFERRED)
    labels = [{"source": SOURCE, "lane": lane, "state": state} for lane in lanes]
    values = [REGISTRY.get_sample_value("archiver_queue_tasks", each) for each in labels]
    return {lane: value for lane, value in zip(lanes, values, strict=True) if value}


def oldest_s(lane: str) -> float:
    labels = {"source": SOURCE, "lane": lane}
    value = REGISTRY.get_sample_value("archiver_queue_oldest_task_age_seconds", labels)
    assert value is not None
    return value


async def create_earlier(connection: Connection, lane: str, *, before: timedelta) -> None:
    """Store a task that was created some time *before*."""
    archive = an_archive()
    order = Order(key=archive.key, created_at=datetime.now(UTC) - before, client="a")
    subject = connection.tasks.subject(lane, SOURCE, client_token("a"), archive.key_hash)
    await connection.tasks.publish_new(subject, encode(order))


def test_tasks_are_counted_where_they_wait_although_no_worker_has_run(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            gauges = QueueGauges(connection=connection, sources=(SOURCE,))
            await gauges.measure()
            assert not tasks()
            assert oldest_s(Priority.HIGH) == 0
            await create_earlier(connection, PARKED, before=HOUR)
            for _ in range(LIGHT_MAX + 2):
                await queue.enqueue(an_archive(), client="b")
            await queue.enqueue(an_archive(), client="c", urgency=Urgency.LATER)
            await gauges.measure()
            assert tasks() == {Priority.HIGH: LIGHT_MAX, PARKED: 3, DEFERRED: 1}
            assert not tasks("begun")
            assert HOUR.total_seconds() <= oldest_s(PARKED) < 2 * HOUR.total_seconds()
            assert 0 < oldest_s(Priority.HIGH) < HOUR.total_seconds()

    asyncio.run(play())


def test_a_task_that_has_begun_does_not_wait(fleet: Fleet) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        begun.set()
        await go.wait()
        return copies_of(archive)

    async def play() -> None:
        async with fleet.connection() as connection:
            await create_earlier(connection, Priority.HIGH, before=2 * HOUR)
            async with fleet.worker(build, caps={SOURCE: 3}):
                async with asyncio.timeout(HUNG_AFTER_S):
                    await begun.wait()
                await create_earlier(connection, Priority.HIGH, before=HOUR)
                gauges = QueueGauges(connection=connection, sources=(SOURCE,))
                await gauges.measure()
                assert tasks() == {Priority.HIGH: 1}
                assert tasks("begun") == {Priority.HIGH: 1}
                assert HOUR.total_seconds() <= oldest_s(Priority.HIGH) < 2 * HOUR.total_seconds()
                go.set()

    asyncio.run(play())
