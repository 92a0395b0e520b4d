"""The span that created a task, as the task's message carries it to a worker."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from archiver.jetstream.connection import Connection
from archiver.jetstream.later_orders import LaterOrders, set_aside
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive, EnqueueOutcome
from archiver.runtime.tasks import all_or_none, in_background
from archiver.tasks import Urgency
from archiver.telemetry import tracing
from archiver.telemetry.open_telemetry import open_recorder
from archiver.telemetry.tracing_setup import sending_traces
from tests.parts.collector import collecting
from tests.parts.fleet import CAPS, LEASE, Fleet, an_archive

Move = Callable[[Connection, JetStreamTaskQueue, Archive], Awaitable[None]]


@pytest.fixture
def _traced() -> Iterator[None]:
    recorder, close = open_recorder((), process="web", version="1")
    tracing.record_with(recorder)
    yield
    tracing.record_with(None)
    close()


async def _claimed(connection: Connection) -> str:
    """Return the traceparent of the next task."""
    async with open_work_queue(connection=connection, caps=CAPS, lease=LEASE) as work:
        lease = await work.claim()
        assert lease
        await lease.succeed()
        return lease.traceparent


async def _promote(_: Connection, queue: JetStreamTaskQueue, archive: Archive) -> None:
    """Have a client join a deferred task."""
    assert await queue.enqueue(archive, client="b") is EnqueueOutcome.JOINED


async def _set_aside(connection: Connection, _: JetStreamTaskQueue, archive: Archive) -> None:
    """Set a task aside, and have another worker return it."""
    tasks = connection.tasks
    message = await tasks.find(archive.key_hash)
    assert message
    await set_aside(tasks, message)
    async with in_background(LaterOrders(tasks=tasks, sources=CAPS).keep_returning()):
        while tasks.parse((await tasks.find(archive.key_hash) or message).subject)[0] == "later":
            await asyncio.sleep(0.02)


async def _leave(_: Connection, __: JetStreamTaskQueue, ___: Archive) -> None:
    """Have a worker move a deferred task to a lane, as it does if nothing else waits."""


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize(
    ("urgency", "move"),
    (
        (Urgency.NOW, _leave),
        (Urgency.LATER, _leave),
        (Urgency.LATER, _promote),
        (Urgency.NOW, _set_aside),
    ),
    ids=("created", "deferred", "promoted", "set aside"),
)
def test_a_worker_learns_which_span_created_a_task(
    fleet: Fleet, urgency: Urgency, move: Move
) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            queue, archive = JetStreamTaskQueue(connection=connection), an_archive()
            with tracing.span(tracing.SpanName.REQUEST) as request:
                await queue.enqueue(archive, client="a", urgency=urgency)
            tracing.record_with(None)  # who moves it may have no extra
            await move(connection, queue, archive)
            assert (await _claimed(connection))[3:35] == request.trace_id

    asyncio.run(play())


def test_all_requests_of_a_crowd_lead_to_the_span_that_created_the_task(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def come(queue: JetStreamTaskQueue, archive: Archive) -> None:
        with tracing.span(tracing.SpanName.REQUEST):
            await queue.enqueue(archive, client="a")

    async def play() -> None:
        async with sending_traces(process="web", version="1"), fleet.queue() as queue:
            await all_or_none([come(queue, archive) for archive in [an_archive()] * 10])

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        asyncio.run(play())

    tasks = collector.named("archiver.task")
    (created,) = [task for task in tasks if task.attributes["archiver.outcome"] == "created"]
    assert len({task.trace_id for task in tasks}) == 10
    assert [task.links for task in tasks if task != created] == [[created.place]] * 9


def test_a_process_without_traces_adds_no_header(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            queue, archive = JetStreamTaskQueue(connection=connection), an_archive()
            await queue.enqueue(archive, client="a")
            stored = await connection.link.js.get_last_msg(
                connection.tasks.name, connection.tasks.subject("*", "*", "*", archive.key_hash)
            )
            assert tracing.TRACEPARENT not in (stored.headers or {})
            assert not await _claimed(connection)

    asyncio.run(play())
