"""How attempts end whose source is paused."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import ArchiverError, PartOrigin, SourceBusy, SourcePaused, SourceTimeout
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.tasks import Priority, Task, TaskState
from archiver.testing import MemoryEngine, MemoryWorkQueue
from archiver.worker.worker import Worker
from tests.parts.fleet import HUNG_AFTER_S, POLICY, an_archive, copies_of

PART = PartOrigin(path="lib", url="https://lib.example/lib", source="lib", repo="lib")
MINUTE = timedelta(minutes=1)
PAUSED = SourcePaused("hgmo is not asked now", retry_after=MINUTE)


def attempts(
    *errors: ArchiverError,
    paused: Sequence[str] = ("hgmo",),
    priority: Priority = Priority.HIGH,
    until: TaskState,
) -> tuple[Task, list[tuple[str, float]]]:
    """Have a task end with each of *errors* in turn; return its last state and the waits."""
    left: Iterator[ArchiverError] = iter(errors)

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        for error in left:
            raise error
        return copies_of(archive)

    async def play() -> Task:
        engine, archive = MemoryEngine(), an_archive()
        queue = MemoryWorkQueue(engine)
        policy = replace(POLICY, concurrency=1, max_failures=2, retry_base=timedelta(seconds=9))
        worker = Worker(
            build=build, queue=queue, policy=policy, is_paused=lambda source: source in paused
        )
        await engine.enqueue(archive, priority=priority)
        working = asyncio.create_task(worker.work_until_closed())
        async with asyncio.timeout(HUNG_AFTER_S):
            while True:
                task = await engine.task(archive)
                if task and task.state is until:
                    break
                await asyncio.sleep(0.01)
        queue.close()
        working.cancel()
        await asyncio.wait({working})
        return task

    with capture_logs() as lines:
        task = asyncio.run(play())
    waits = [(line["event"], line["wait_s"]) for line in lines if "wait_s" in line]
    return task, waits


def test_a_task_whose_source_is_paused_waits_without_a_failure_or_a_delay() -> None:
    task, waits = attempts(*[PAUSED] * 5, until=TaskState.SUCCESS)
    assert (task.attempt, task.failures) == (6, 0)
    assert waits == [("task.waiting", 0)] * 5


@pytest.mark.parametrize(
    "error", (SourceTimeout("late"), SourceBusy("busy", retry_after=timedelta(seconds=42)))
)
def test_a_failure_that_pauses_the_source_counts_and_delays_nothing(error: ArchiverError) -> None:
    task, waits = attempts(error, until=TaskState.SUCCESS)
    assert (task.attempt, task.failures) == (2, 1)
    assert waits == [("task.retried", 0)]


def test_a_failure_of_a_source_that_is_not_paused_is_delayed_as_ever() -> None:
    busy = SourceBusy("busy", retry_after=timedelta(seconds=42))
    task, waits = attempts(busy, paused=(), until=TaskState.RETRY)
    assert task.failures == 1
    assert [wait_s >= 42 for _, wait_s in waits] == [True]


def test_a_task_whose_submodule_is_paused_is_delayed_without_a_failure() -> None:
    paused = SourcePaused("lib is not asked now", retry_after=MINUTE).in_part(PART)
    task, waits = attempts(paused, paused=("lib",), until=TaskState.RETRY)
    assert task.failures == 0
    assert [(event, 30 <= wait_s <= 60) for event, wait_s in waits] == [("task.waiting", True)]


def test_a_task_that_is_handed_out_during_a_pause_is_delayed() -> None:
    """Without a delay, its worker would begin one useless attempt after the other."""
    task, waits = attempts(PAUSED, priority=Priority.LOW, until=TaskState.RETRY)
    assert task.failures == 0
    assert [wait_s >= 30 for _, wait_s in waits] == [True]
