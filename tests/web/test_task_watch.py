"""The readings of a task watch, in a world of fakes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archiver.errors import SourceUnavailable, WrongRoot
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.runtime.notifications import Notifications
from archiver.tasks import Phase, TaskState
from archiver.testing import FakeAttempt, MemoryIndex
from archiver.web.waiting.task_watch import TaskWatch
from archiver.web.waiting.waiters import WaitLimits, open_waiters
from tests.memory_world import World

OFTEN = timedelta(milliseconds=5)
PATIENCE_S = 5


class CountingIndex(MemoryIndex):
    """Counts look-ups of copies. Each one awaits ``before_copies`` first."""

    asked = 0
    before_copies: Callable[[], Awaitable[object]] | None = None

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        self.asked += 1
        if self.before_copies:
            await self.before_copies()
        return await super().copies(archive, since=since)


@dataclass(kw_only=True)
class Quiet(World):
    """A world whose notifications never arrive."""

    index: CountingIndex = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.engine.notifications = Notifications()
        self.index = CountingIndex(storage=self.storage)
        self.archiver = self.new_process()


@asynccontextmanager
async def watching(world: World, *, enqueued: bool = True) -> AsyncIterator[TaskWatch]:
    """Yield a watch that has read the status once."""
    if enqueued:
        await world.engine.enqueue(world.archive())
    async with open_waiters(world.archiver, WaitLimits(), poll_interval=OFTEN) as waiters:
        with waiters.watch(world.archive(), "192.0.2.1") as watch:
            await until(lambda: watch.status is not None)
            yield watch


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not happened():
            await asyncio.sleep(OFTEN.total_seconds())


def state(watch: TaskWatch) -> TaskState | None:
    return watch.status.task.state if watch.status else None


def test_without_notifications_only_the_task_is_read_until_it_ends() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            await until(lambda: world.engine.asked >= 10)
            attempt = world.engine.claim()
            assert attempt
            await until(lambda: state(watch) is TaskState.STARTED)
            attempt.report(Phase.FETCHING, 7)
            await until(lambda: bool(watch.status and watch.status.task.bytes_done == 7))
            assert world.index.asked == 1

    asyncio.run(play(Quiet()))


def test_a_commit_is_seen_without_its_notification() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            await world.work()
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.SUCCESS
            assert watch.status
            assert len(watch.status.urls) == 2

    asyncio.run(play(Quiet()))


def test_a_failure_is_seen_without_its_notification() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            attempt = world.engine.claim()
            assert attempt
            world.engine.fail(attempt, WrongRoot("two roots"))
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.FAILURE

    asyncio.run(play(Quiet()))


def test_the_failure_of_an_old_task_does_not_end_the_wait_for_a_new_one() -> None:
    async def play(world: Quiet) -> None:
        async def ask_again() -> None:
            world.index.before_copies = None
            assert await world.engine.enqueue(world.archive()) is EnqueueOutcome.CREATED

        async with watching(world) as watch:
            world.index.before_copies = ask_again
            attempt = world.engine.claim()
            assert attempt
            world.engine.fail(attempt, SourceUnavailable("the host is away"))
            await until(lambda: world.index.asked == 2 and watch.version > 1)
            assert state(watch) is TaskState.PENDING
            await world.work()
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.SUCCESS

    asyncio.run(play(Quiet()))


async def _stored_by_others(world: World) -> None:
    archive = world.archive()
    await world.archiver.build(archive, FakeAttempt(archive=archive))


def test_an_archive_without_a_task_is_found_in_the_index() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world, enqueued=False) as watch:
            await _stored_by_others(world)
            await until(lambda: watch.ended)

    asyncio.run(play(Quiet()))


def test_without_an_engine_the_index_is_read() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            world.engine.down = True
            await _stored_by_others(world)
            await until(lambda: watch.ended)

    asyncio.run(play(Quiet()))
