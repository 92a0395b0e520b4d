"""The promises of ``TaskQueue``, ``RepairList`` and ``Fleet``, kept by the fake and by NATS."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from archiver.errors import PartOrigin
from archiver.model import Archive, Copies, EnqueueOutcome, Region
from archiver.ports.queue import Attempt, Repair, TaskQueue
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, TaskState
from tests.parts.fleet import HUNG_AFTER_S, Busy, Refused, an_archive, copies_of
from tests.parts.queue_backends import OpenStand, QueueBackend

MAX_FAILURES = 3


async def _ended(queue: TaskQueue, archive: Archive) -> Task:
    async with asyncio.timeout(HUNG_AFTER_S):
        while True:
            task = await queue.task(archive)
            if task and task.state.terminal:
                return task
            await asyncio.sleep(0.01)


async def _build(archive: Archive, attempt: Attempt) -> Copies:
    attempt.report(Phase.FETCHING, 1)
    attempt.report(Phase.COMMITTING, 1)
    await attempt.prove_lease()
    return copies_of(archive)


async def _refuse(_archive: Archive, _attempt: Attempt) -> Copies:
    raise Refused("no")


async def _be_busy(_archive: Archive, _attempt: Attempt) -> Copies:
    raise Busy("later")


def test_a_task_that_was_never_created_is_none(open_stand: OpenStand) -> None:
    async def play() -> Task | None:
        async with open_stand() as stand:
            return await stand.queue.task(an_archive())

    assert asyncio.run(play()) is None


def test_a_second_request_joins_whatever_its_priority(open_stand: OpenStand) -> None:
    async def play() -> list[EnqueueOutcome]:
        archive = an_archive()
        async with open_stand() as stand:
            queue = stand.queue
            return [
                await queue.enqueue(archive, priority=priority)
                for priority in (Priority.HIGH, Priority.HIGH, Priority.LOW)
            ]

    assert asyncio.run(play()) == [
        EnqueueOutcome.CREATED,
        EnqueueOutcome.JOINED,
        EnqueueOutcome.JOINED,
    ]


def test_different_archives_have_different_tasks(open_stand: OpenStand) -> None:
    async def play() -> list[EnqueueOutcome]:
        async with open_stand() as stand:
            return [await stand.queue.enqueue(an_archive()) for _ in range(3)]

    assert asyncio.run(play()) == [EnqueueOutcome.CREATED] * 3


def test_a_waiting_task_is_pending_and_has_its_creation_time(open_stand: OpenStand) -> None:
    async def play() -> Task | None:
        archive = an_archive()
        async with open_stand() as stand:
            await stand.queue.enqueue(archive)
            return await stand.queue.task(archive)

    task = asyncio.run(play())
    assert task
    assert (task.state, task.phase, task.attempt) == (TaskState.PENDING, Phase.QUEUED, 0)
    assert task.created_at


def test_a_task_that_is_built_ends_in_success(open_stand: OpenStand) -> None:
    async def play() -> Task:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(_build):
            await stand.queue.enqueue(archive)
            return await _ended(stand.queue, archive)

    task = asyncio.run(play())
    assert (task.state, task.attempt, task.failures, task.error) == (
        TaskState.SUCCESS,
        1,
        0,
        None,
    )
    assert task.created_at
    assert task.started_at


def test_an_ended_task_can_be_created_again(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand:
            async with stand.worker(_build):
                await stand.queue.enqueue(archive)
                await _ended(stand.queue, archive)
            async with asyncio.timeout(HUNG_AFTER_S):  # between SUCCESS and the queue's forgetting
                while await stand.queue.enqueue(archive) is not EnqueueOutcome.CREATED:
                    await asyncio.sleep(0.01)

    asyncio.run(play())


def test_a_final_error_is_remembered_as_a_recent_failure(open_stand: OpenStand) -> None:
    async def play() -> tuple[Task, str]:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(_refuse):
            await stand.queue.enqueue(archive)
            task = await _ended(stand.queue, archive)
            async with asyncio.timeout(HUNG_AFTER_S):
                while not (failure := stand.queue.recent_failure(archive)):
                    await asyncio.sleep(0.01)
            return task, failure.code

    task, remembered = asyncio.run(play())
    assert (task.state, task.attempt, task.failures) == (TaskState.FAILURE, 1, 1)
    assert task.error
    assert (task.error.code, task.error.message, remembered) == ("refused", "no", "refused")


def test_a_retryable_error_is_retried_and_not_remembered(
    open_stand: OpenStand,
) -> None:
    async def play() -> tuple[Task, object]:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(_be_busy):
            await stand.queue.enqueue(archive)
            task = await _ended(stand.queue, archive)
            await asyncio.sleep(0.1)
            return task, stand.queue.recent_failure(archive)

    task, remembered = asyncio.run(play())
    assert (task.state, task.failures) == (TaskState.FAILURE, MAX_FAILURES)
    assert remembered is None


def test_the_last_error_in_a_submodule_is_remembered_although_it_is_retryable(
    open_stand: OpenStand,
) -> None:
    origin = PartOrigin(path="lib", url="https://host/lib", source="vault", repo="lib")

    async def be_busy(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Busy("later").within(origin)

    async def play() -> tuple[Task, Failure]:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(be_busy):
            await stand.queue.enqueue(archive)
            task = await _ended(stand.queue, archive)
            async with asyncio.timeout(HUNG_AFTER_S):
                while not (failure := stand.queue.recent_failure(archive)):
                    await asyncio.sleep(0.01)
            return task, failure

    task, remembered = asyncio.run(play())
    assert (task.state, task.failures) == (TaskState.FAILURE, MAX_FAILURES)
    assert task.error == remembered == Failure(code="busy", message="later", origins=(origin,))


def test_a_repair_may_be_noted_and_forgotten_any_number_of_times(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand:
            await stand.repairs.forget(archive)
            for _ in range(2):
                await stand.repairs.add(archive, [Region("two")])
            for _ in range(2):
                await stand.repairs.forget(archive)

    asyncio.run(play())


async def _due(stand: QueueBackend) -> list[Repair]:
    return [repair async for repair in stand.repairs.due()]


def test_a_repair_is_due_until_it_is_postponed_or_forgotten(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive, soon = an_archive(), timedelta(seconds=0.3)
        async with open_stand() as stand:
            await stand.repairs.add(archive, [Region("two")])
            (repair,) = await _due(stand)
            assert (repair.archive, [*repair.missing], repair.tries) == (archive, ["two"], 0)
            assert await stand.repairs.postpone(repair, until=datetime.now(UTC) + soon)
            assert not await stand.repairs.postpone(repair, until=datetime.now(UTC))
            assert await _due(stand) == []
            await asyncio.sleep(soon.total_seconds())
            (repair,) = await _due(stand)
            assert repair.tries == 1
            await stand.repairs.forget(archive)
            assert await _due(stand) == []
            assert not await stand.repairs.postpone(repair, until=datetime.now(UTC))

    asyncio.run(play())


def test_the_backlog_has_waiting_and_running_tasks_and_their_mean_duration(
    open_stand: OpenStand,
) -> None:
    async def play() -> tuple[Backlog, Backlog]:
        hold = asyncio.Event()

        async def build(archive: Archive, attempt: Attempt) -> Copies:
            await hold.wait()
            return await _build(archive, attempt)

        async with open_stand() as stand, stand.worker(build):
            for _ in range(7):
                await stand.queue.enqueue(an_archive())
            await stand.queue.enqueue(an_archive("another"))
            busy = await _backlog(stand.queue, lambda now: bool(now.running and now.waiting))
            hold.set()
            idle = await _backlog(
                stand.queue, lambda now: not now.running + now.waiting and bool(now.mean)
            )
            return busy, idle

    busy, idle = asyncio.run(play())
    assert busy.waiting + busy.running == 7
    assert busy.mean is None
    assert idle.mean


def test_the_mean_covers_builds_for_which_clients_may_have_waited(
    open_stand: OpenStand,
) -> None:
    quick, found, slow = an_archive(), an_archive(), an_archive()
    took = timedelta(seconds=0.3)

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        if archive == found:
            attempt.report(Phase.COPYING)
            return copies_of(archive)
        await asyncio.sleep(took.total_seconds() if archive == slow else 0)
        return await _build(archive, attempt)

    async def play() -> Backlog:
        async with open_stand() as stand, stand.worker(build):
            for archive, priority in (
                (quick, Priority.LOW),
                (found, Priority.HIGH),
                (slow, Priority.HIGH),
                (found, Priority.HIGH),
                (quick, Priority.LOW),
            ):
                await stand.queue.enqueue(archive, priority=priority)
                await _ended(stand.queue, archive)
            return await _backlog(stand.queue, lambda now: bool(now.mean))

    mean = asyncio.run(play()).mean
    assert mean
    assert mean >= took


async def _backlog(
    queue: TaskQueue, until: Callable[[Backlog], bool], archive: Archive | None = None
) -> Backlog:
    async with asyncio.timeout(HUNG_AFTER_S):
        while True:
            backlog = await queue.backlog(archive or an_archive())
            if backlog and until(backlog):
                return backlog
            await asyncio.sleep(0.02)


def test_a_healthy_fleet_passes_its_check(open_stand: OpenStand) -> None:
    async def play() -> object:
        async with open_stand() as stand:
            return await stand.fleet.check_queue()

    assert asyncio.run(play()) is None


def test_a_dropped_task_is_gone_if_it_has_ended_or_is_a_repair(open_stand: OpenStand) -> None:
    async def play() -> None:
        ended, repair, waiting = (an_archive() for _ in range(3))
        async with open_stand() as stand:
            async with stand.worker(_build):
                await stand.queue.enqueue(ended)
                await _ended(stand.queue, ended)
            await stand.queue.enqueue(repair, priority=Priority.LOW)
            await stand.queue.enqueue(waiting)
            for archive in (ended, repair, waiting):
                await stand.queue.drop(archive)
                await stand.queue.drop(archive)
            assert await stand.queue.task(ended) is None
            assert await stand.queue.task(repair) is None
            assert await stand.queue.task(waiting) is not None
            assert await stand.queue.enqueue(repair) is EnqueueOutcome.CREATED

    asyncio.run(play())
