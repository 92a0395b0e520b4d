"""What ``ports.Engine`` promises, of the fake and of the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from archiver.errors import ArchiverError
from archiver.jetstream.worker import Build
from archiver.model import Archive, Copies, EnqueueOutcome, Region
from archiver.ports.queue import Attempt, Engine
from archiver.tasks import Backlog, Phase, Priority, Task, TaskState
from archiver.testing import MemoryEngine
from tests.jetstream.conftest import Busy, Refused, an_archive, copies_of, prepared
from tests.parts.nats import Nats

MAX_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An engine, and a way to have a worker at it."""

    engine: Engine
    work: Callable[[Build], AbstractAsyncContextManager[None]]


Open = Callable[[], AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def _memory() -> AsyncIterator[Running]:
    engine = MemoryEngine()

    @asynccontextmanager
    async def work(build: Build) -> AsyncIterator[None]:
        working = asyncio.create_task(_serve(engine, build))
        yield
        working.cancel()

    yield Running(engine=engine, work=work)


async def _serve(engine: MemoryEngine, build: Build) -> None:
    while True:
        await asyncio.sleep(0.001)
        if attempt := engine.claim():
            try:
                await build(attempt.archive, attempt)
            except ArchiverError as exc:
                failures = engine.tasks[attempt.archive.key].failures + 1
                again = exc.retryable and failures < MAX_FAILURES
                (engine.retry if again else engine.fail)(attempt, exc)
            else:
                engine.succeed(attempt)


@pytest.fixture(params=("memory", "jetstream"))
def opened(request: pytest.FixtureRequest, nats: Nats, namespace: str) -> Open:
    if request.param == "memory":
        return _memory
    fleet = prepared(nats, namespace)

    @asynccontextmanager
    async def jetstream() -> AsyncIterator[Running]:
        async with fleet.engine() as engine:
            yield Running(
                engine=engine, work=lambda build: fleet.worker(build, max_failures=MAX_FAILURES)
            )

    return jetstream


async def _ended(engine: Engine, archive: Archive) -> Task:
    async with asyncio.timeout(15):
        while True:
            task = await engine.task(archive)
            if task and task.state.terminal:
                return task
            await asyncio.sleep(0.01)


async def _build(archive: Archive, attempt: Attempt) -> Copies:
    attempt.report(Phase.FETCHING, 1)
    attempt.report(Phase.COMMITTING, 1)
    await attempt.hold()
    return copies_of(archive)


async def _refuse(_archive: Archive, _attempt: Attempt) -> Copies:
    raise Refused("no")


async def _be_busy(_archive: Archive, _attempt: Attempt) -> Copies:
    raise Busy("later")


def test_nothing_is_known_of_a_task_that_was_never_created(opened: Open) -> None:
    async def play() -> Task | None:
        async with opened() as running:
            return await running.engine.task(an_archive())

    assert asyncio.run(play()) is None


def test_a_second_request_joins_whatever_its_priority(opened: Open) -> None:
    async def play() -> list[EnqueueOutcome]:
        archive = an_archive()
        async with opened() as running:
            engine = running.engine
            return [
                await engine.enqueue(archive, priority=priority)
                for priority in (Priority.HIGH, Priority.HIGH, Priority.LOW)
            ]

    assert asyncio.run(play()) == [
        EnqueueOutcome.CREATED,
        EnqueueOutcome.JOINED,
        EnqueueOutcome.JOINED,
    ]


def test_different_archives_have_different_tasks(opened: Open) -> None:
    async def play() -> list[EnqueueOutcome]:
        async with opened() as running:
            return [await running.engine.enqueue(an_archive()) for _ in range(3)]

    assert asyncio.run(play()) == [EnqueueOutcome.CREATED] * 3


def test_a_task_that_waits_is_pending_and_says_since_when(opened: Open) -> None:
    async def play() -> Task | None:
        archive = an_archive()
        async with opened() as running:
            await running.engine.enqueue(archive)
            return await running.engine.task(archive)

    task = asyncio.run(play())
    assert task
    assert (task.state, task.phase, task.attempt) == (TaskState.PENDING, Phase.QUEUED, 0)
    assert task.created_at


def test_a_task_that_is_built_ends_in_success(opened: Open) -> None:
    async def play() -> Task:
        archive = an_archive()
        async with opened() as running, running.work(_build):
            await running.engine.enqueue(archive)
            return await _ended(running.engine, archive)

    task = asyncio.run(play())
    assert (task.state, task.attempt, task.failures, task.error) == (
        TaskState.SUCCESS,
        1,
        0,
        None,
    )
    assert task.created_at
    assert task.started_at


def test_after_its_end_the_task_can_be_created_anew(opened: Open) -> None:
    async def play() -> None:
        archive = an_archive()
        async with opened() as running:
            async with running.work(_build):
                await running.engine.enqueue(archive)
                await _ended(running.engine, archive)
            async with asyncio.timeout(5):  # between SUCCESS and the queue's forgetting
                while await running.engine.enqueue(archive) is not EnqueueOutcome.CREATED:
                    await asyncio.sleep(0.01)

    asyncio.run(play())


def test_an_error_for_good_is_a_failure_that_is_remembered(opened: Open) -> None:
    async def play() -> tuple[Task, str]:
        archive = an_archive()
        async with opened() as running, running.work(_refuse):
            await running.engine.enqueue(archive)
            task = await _ended(running.engine, archive)
            async with asyncio.timeout(5):
                while not (failure := running.engine.recent_failure(archive)):
                    await asyncio.sleep(0.01)
            return task, failure.code

    task, remembered = asyncio.run(play())
    assert (task.state, task.attempt, task.failures) == (TaskState.FAILURE, 1, 1)
    assert task.error
    assert (task.error.code, task.error.message, remembered) == ("refused", "no", "refused")


def test_an_error_that_a_retry_may_mend_is_retried_and_not_held_against_anyone(
    opened: Open,
) -> None:
    async def play() -> tuple[Task, object]:
        archive = an_archive()
        async with opened() as running, running.work(_be_busy):
            await running.engine.enqueue(archive)
            task = await _ended(running.engine, archive)
            await asyncio.sleep(0.1)
            return task, running.engine.recent_failure(archive)

    task, remembered = asyncio.run(play())
    assert (task.state, task.failures) == (TaskState.FAILURE, MAX_FAILURES)
    assert remembered is None


def test_a_repair_may_be_asked_for_and_forgotten_any_number_of_times(opened: Open) -> None:
    async def play() -> None:
        archive = an_archive()
        async with opened() as running:
            await running.engine.repaired(archive)
            for _ in range(2):
                await running.engine.repair_later(archive, [Region("two")])
            for _ in range(2):
                await running.engine.repaired(archive)

    asyncio.run(play())


def test_the_backlog_says_how_many_wait_and_run_and_how_long_they_took(opened: Open) -> None:
    async def play() -> tuple[Backlog, Backlog]:
        hold = asyncio.Event()

        async def build(archive: Archive, attempt: Attempt) -> Copies:
            await hold.wait()
            return await _build(archive, attempt)

        async with opened() as running, running.work(build):
            for _ in range(7):
                await running.engine.enqueue(an_archive())
            await running.engine.enqueue(an_archive("another"))
            busy = await _backlog(running.engine, lambda now: bool(now.running and now.waiting))
            hold.set()
            idle = await _backlog(
                running.engine, lambda now: not now.running + now.waiting and bool(now.mean)
            )
            return busy, idle

    busy, idle = asyncio.run(play())
    assert busy.waiting + busy.running == 7
    assert busy.mean is None
    assert idle.mean


def test_the_mean_is_of_what_was_made_while_clients_may_have_waited_for_it(opened: Open) -> None:
    quick, found, slow = an_archive(), an_archive(), an_archive()
    took = timedelta(seconds=0.3)

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        if archive == found:
            attempt.report(Phase.COPYING)
            return copies_of(archive)
        await asyncio.sleep(took.total_seconds() if archive == slow else 0)
        return await _build(archive, attempt)

    async def play() -> Backlog:
        async with opened() as running, running.work(build):
            for archive, priority in (
                (quick, Priority.LOW),
                (found, Priority.HIGH),
                (slow, Priority.HIGH),
                (found, Priority.HIGH),
                (quick, Priority.LOW),
            ):
                await running.engine.enqueue(archive, priority=priority)
                await _ended(running.engine, archive)
            return await _backlog(running.engine, lambda now: bool(now.mean))

    mean = asyncio.run(play()).mean
    assert mean
    assert mean >= took


async def _backlog(engine: Engine, until: Callable[[Backlog], bool]) -> Backlog:
    async with asyncio.timeout(20):
        while True:
            backlog = await engine.backlog("hgmo")
            if backlog and until(backlog):
                return backlog
            await asyncio.sleep(0.02)


def test_a_healthy_engine_has_no_complaint(opened: Open) -> None:
    async def play() -> object:
        async with opened() as running:
            return await running.engine.check()

    assert asyncio.run(play()) is None
