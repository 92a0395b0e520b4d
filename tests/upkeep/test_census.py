"""A census counts all tasks, and lists the wanted ones."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from archiver.errors import SourceRefused, SourceUnavailable
from archiver.model import Archive
from archiver.ports.task_list import ListedTask, Queued
from archiver.tasks import TaskState
from archiver.testing import MemoryEngine, MemoryTaskList
from archiver.upkeep.census import Census, Overview, Wanted
from tests.parts.fleet import an_archive

STARTED, RETRY = TaskState.STARTED, TaskState.RETRY
PENDING, FAILURE = TaskState.PENDING, TaskState.FAILURE
NOW = datetime.now(UTC)


class Queue:
    """A queue whose tasks were created one second after the other."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()

    async def add(self, state: TaskState, *, source: str = "hgmo", client: str = "") -> Archive:
        archive = an_archive(source)
        await self.engine.enqueue(archive, client=client)
        if state is not PENDING:
            attempt = self.engine.claim()
            assert attempt
            assert attempt.archive == archive
            if state is RETRY:
                self.engine.give_back(archive, SourceUnavailable("away"), failures=1)
            if state is FAILURE:
                self.engine.fail(attempt, SourceRefused("refused"))
        else:
            self.engine.withdraw(archive)
        number = len(self.engine.tasks)
        task = self.engine.tasks[archive.key]
        at = NOW + timedelta(seconds=number)
        self.engine.tasks[archive.key] = replace(task, created_at=at, updated_at=at)
        return archive

    async def census(self, wanted: Wanted = Wanted()) -> Overview:  # noqa: B008 - it is frozen
        return await Census(tasks=MemoryTaskList(self.engine)).take(wanted)


def archives(overview: Overview) -> list[Archive]:
    return [listed.task.archive for listed in overview.tasks]


def test_tasks_are_counted_by_state_source_code_and_client() -> None:
    async def scenario() -> None:
        queue = Queue()
        for state, count in ((STARTED, 2), (RETRY, 1), (PENDING, 3), (FAILURE, 4)):
            for number in range(count):
                await queue.add(state, client=f"token:{number}")
        await queue.add(PENDING, source="git")
        overview = await queue.census()
        assert overview.counts == {
            (STARTED, "hgmo"): 2,
            (RETRY, "hgmo"): 1,
            (PENDING, "hgmo"): 3,
            (PENDING, "git"): 1,
            (FAILURE, "hgmo"): 4,
        }
        assert overview.codes == {(RETRY, "source_unavailable"): 1, (FAILURE, "source_refused"): 4}
        assert overview.clients == {"token:0": 3, "token:1": 2, "token:2": 1}
        assert overview.tasks == []
        of_git = await queue.census(Wanted(source="git"))
        assert (of_git.counts, of_git.codes) == ({(PENDING, "git"): 1}, {})

    asyncio.run(scenario())


def test_open_tasks_come_the_oldest_first_and_failed_ones_the_latest_first() -> None:
    async def scenario() -> None:
        queue = Queue()
        added = {
            state: [await queue.add(state) for _ in range(3)]
            for state in (PENDING, FAILURE, RETRY, STARTED)
        }
        expected = [
            *added[STARTED][:2],
            *added[RETRY][:2],
            *added[PENDING][:2],
            *added[FAILURE][:0:-1],
        ]
        assert archives(await queue.census(Wanted(limit=2))) == expected
        for state, some in added.items():
            only = archives(await queue.census(Wanted(limit=9, state=state)))
            assert only == (some[::-1] if state is FAILURE else some)

    asyncio.run(scenario())


def test_a_listed_task_names_its_client() -> None:
    async def scenario() -> list[str]:
        queue = Queue()
        for state in (STARTED, PENDING, FAILURE):
            await queue.add(state, client=f"token:{state}")
        return [listed.client for listed in (await queue.census(Wanted(limit=1))).tasks]

    assert asyncio.run(scenario()) == ["token:STARTED", "token:PENDING", "token:FAILURE"]


def test_a_task_that_the_queue_has_lost_is_not_counted() -> None:
    class Wiped(MemoryTaskList):
        """Its queue is empty, although a task has a state."""

        def queued(self, _source: str | None = None) -> AsyncGenerator[Queued, None]:
            return MemoryTaskList(MemoryEngine()).queued()

    async def scenario() -> Overview:
        queue = Queue()
        await queue.add(STARTED)
        return await Census(tasks=Wiped(queue.engine)).take(Wanted(limit=1))

    overview = asyncio.run(scenario())
    assert (overview.counts, overview.tasks) == ({}, [])


def test_a_bounded_census_says_how_far_back_it_looked() -> None:
    async def scenario() -> None:
        queue = Queue()
        for _ in range(5):
            await queue.add(FAILURE)
        assert (await queue.census(Wanted(read_max=5))).since is None
        bounded = await queue.census(Wanted(read_max=3))
        assert bounded.since == NOW + timedelta(seconds=3)
        assert bounded.counts[FAILURE, "hgmo"] == 3

    asyncio.run(scenario())


def test_listed_tasks_are_comparable_by_time_only() -> None:
    """Two tasks may have failed at the same moment."""

    async def scenario() -> list[ListedTask]:
        queue = Queue()
        for _ in range(3):
            archive = await queue.add(FAILURE)
            task = queue.engine.tasks[archive.key]
            queue.engine.tasks[archive.key] = replace(task, updated_at=NOW)
        return [*(await queue.census(Wanted(limit=2))).tasks]

    assert len(asyncio.run(scenario())) == 2
