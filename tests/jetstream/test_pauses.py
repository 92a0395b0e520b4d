"""Tasks of paused sources, on a real server: workers leave them in the queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from archiver.breaker import BreakerState
from archiver.jetstream.consumers import SourceConsumer
from archiver.jetstream.pauses import Pauses
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive
from archiver.ports.queue import Lease
from archiver.runtime.tasks import in_background
from archiver.tasks import Priority
from tests.parts.fleet import HUNG_AFTER_S, LEASE, Fleet, an_archive

CAPS = {"paused": 8, "other": 8}


class Claims:
    """Workers that claim tasks of two sources, of which one has a ``state``."""

    def __init__(self) -> None:
        self.state = BreakerState.OPEN
        self.claimed: list[Archive] = []

    def state_of(self, source: str) -> BreakerState:
        return self.state if source == "paused" else BreakerState.CLOSED

    @asynccontextmanager
    async def worker(self, fleet: Fleet) -> AsyncIterator[None]:
        async with (
            fleet.connection() as connection,
            open_work_queue(
                connection=connection, caps=CAPS, lease=LEASE, state_of=self.state_of
            ) as queue,
        ):

            async def slot() -> None:
                while lease := await queue.claim():
                    self.claimed.append(lease.archive)
                    await self.end(lease)

            async with in_background(slot(), slot()):
                yield

    async def end(self, lease: Lease) -> None:
        await lease.succeed()

    async def until(self, *archives: Archive) -> None:
        while not {archive.key for archive in archives} <= {each.key for each in self.claimed}:
            await asyncio.sleep(0.02)


def test_a_paused_source_delays_no_other_and_its_tasks_wait(fleet: Fleet) -> None:
    claims = Claims()
    waiting = [an_archive("paused") for _ in range(5)]
    others = [an_archive("other") for _ in range(5)]

    async def play() -> list[str]:
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            async with claims.worker(fleet), claims.worker(fleet):
                for pair in zip(waiting, others, strict=True):
                    for archive in pair:
                        await queue.enqueue(archive)
                await claims.until(*others)
                sources = [archive.source for archive in claims.claimed]
                claims.state = BreakerState.CLOSED
                await claims.until(*waiting)
                return sources

    assert set(asyncio.run(play())) == {"other"}
    assert len(claims.claimed) == 10, "each task was handed out once"


def test_a_task_that_arrives_during_a_pause_goes_back(fleet: Fleet) -> None:
    """Its worker has asked for it before, and its request waits at the server."""
    claims, first, second = Claims(), an_archive("paused"), an_archive("paused")
    claims.state = BreakerState.CLOSED

    async def play() -> int:
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            async with claims.worker(fleet):
                await queue.enqueue(first)
                await claims.until(first)
                claims.state = BreakerState.OPEN
                await queue.enqueue(second)
                await queue.enqueue(mark := an_archive("other"))
                await claims.until(mark)
                early = len(claims.claimed)
                claims.state = BreakerState.CLOSED
                await claims.until(second)
                return early

    assert asyncio.run(play()) == 2


def test_tasks_that_need_no_host_do_not_wait_for_the_end_of_a_pause(fleet: Fleet) -> None:
    claims, waiting = Claims(), an_archive("paused")
    repair, relative = an_archive("paused"), an_archive("paused")

    async def play() -> list[str]:
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            async with claims.worker(fleet):
                await queue.enqueue(waiting, client="one")
                await queue.enqueue(repair, priority=Priority.LOW)
                await queue.enqueue(relative, client="one", needs_host=False)
                await claims.until(repair, relative)
                early = [archive.key for archive in claims.claimed]
                claims.state = BreakerState.CLOSED
                await claims.until(waiting)
                return early

    assert waiting.key not in asyncio.run(play())


def test_after_a_pause_a_worker_tries_one_task_at_a_time(fleet: Fleet) -> None:
    async def play() -> None:
        state = BreakerState.HALF_OPEN
        pauses = Pauses(state_of=lambda _: state)
        async with fleet.connection() as connection:

            def lane(source: str, priority: Priority = Priority.HIGH) -> SourceConsumer:
                return SourceConsumer(
                    connection=connection, source=source, priority=priority, cap=1, lease=LEASE
                )

            paused = lane("paused")
            assert pauses.admits(paused)
            pauses.note_request(paused)
            assert not pauses.admits(paused)
            assert not pauses.is_paused(paused), "the task that was asked for is handed out"
            assert pauses.admits(lane("other"))
            assert pauses.admits(lane("paused", Priority.LOW))
            state = BreakerState.CLOSED
            assert pauses.admits(paused)

    asyncio.run(play())
