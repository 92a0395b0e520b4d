"""What a watch asks for, and whom, in a world of fakes."""

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
from archiver.web.watches import Watch, open_watches
from tests.world import World

OFTEN = timedelta(milliseconds=5)
PATIENCE_S = 5


class CountingIndex(MemoryIndex):
    """Counts how often it is asked for copies; ``meanwhile`` is what happens until it answers."""

    asked = 0
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        self.asked += 1
        if self.meanwhile:
            await self.meanwhile()
        return await super().copies(archive, since=since)


@dataclass(kw_only=True)
class Quiet(World):
    """A world whose news of tasks and copies never arrives."""

    index: CountingIndex = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.engine.notifications = Notifications()
        self.index = CountingIndex(storage=self.storage)
        self.archiver = self.new_process()


@asynccontextmanager
async def watching(world: World, *, enqueued: bool = True) -> AsyncIterator[Watch]:
    """Yield a watch that has looked once."""
    if enqueued:
        await world.engine.enqueue(world.archive())
    async with open_watches(world.archiver, look_again=OFTEN) as watches:
        with watches.watch(world.archive()) as watch:
            await until(lambda: watch.status is not None)
            yield watch


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not happened():
            await asyncio.sleep(OFTEN.total_seconds())


def state(watch: Watch) -> TaskState | None:
    return watch.status.task.state if watch.status else None


def test_without_news_the_engine_alone_is_asked_until_the_task_ends() -> None:
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


def test_a_commit_is_seen_although_its_news_was_lost() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            await world.engine.work(world.archiver)
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.SUCCESS
            assert watch.status
            assert len(watch.status.urls) == 2

    asyncio.run(play(Quiet()))


def test_a_failure_is_seen_although_its_news_was_lost() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            attempt = world.engine.claim()
            assert attempt
            world.engine.fail(attempt, WrongRoot("two roots"))
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.FAILURE

    asyncio.run(play(Quiet()))


def test_the_failure_of_a_task_is_not_told_to_who_has_begun_another_one() -> None:
    async def play(world: Quiet) -> None:
        async def ask_again() -> None:
            world.index.meanwhile = None
            assert await world.engine.enqueue(world.archive()) is EnqueueOutcome.MISS

        async with watching(world) as watch:
            world.index.meanwhile = ask_again
            attempt = world.engine.claim()
            assert attempt
            world.engine.fail(attempt, SourceUnavailable("the host is away"))
            await until(lambda: world.index.asked == 2 and watch.version > 1)
            assert state(watch) is TaskState.PENDING
            await world.engine.work(world.archiver)
            await until(lambda: watch.ended)
            assert state(watch) is TaskState.SUCCESS

    asyncio.run(play(Quiet()))


async def _stored_by_others(world: World) -> None:
    archive = world.archive()
    await world.archiver.build(archive, FakeAttempt(archive=archive))


def test_what_no_task_tells_of_is_looked_for_in_the_index() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world, enqueued=False) as watch:
            await _stored_by_others(world)
            await until(lambda: watch.ended)

    asyncio.run(play(Quiet()))


def test_without_an_engine_the_index_is_looked_at() -> None:
    async def play(world: Quiet) -> None:
        async with watching(world) as watch:
            world.engine.down = True
            await _stored_by_others(world)
            await until(lambda: watch.ended)

    asyncio.run(play(Quiet()))
