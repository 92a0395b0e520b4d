"""Accepted tasks survive a loss of the engine's data, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from archiver.jetstream.connection import Connection
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.task_subject import client_token
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt
from archiver.runtime.tasks import in_background
from archiver.tasks import LIGHT_MAX, Priority, TaskState
from archiver.testing import MemoryStorage
from archiver.upkeep.restore import Restorer
from tests.parts.fleet import LEASE, POLICY, Busy, Fleet, an_archive, copies_of, until

LONG = LEASE.total_seconds()


class Web:
    """A process that accepts tasks."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.queue = JetStreamTaskQueue(connection=connection)
        self.restorer = Restorer(queue=self.queue, events=self.queue, lease=LEASE)

    async def wipe(self) -> None:
        """Delete the engine's data, as if the server had lost its folder."""
        for stream in (
            self.connection.tasks.name,
            f"KV_{self.connection.streams.namespace}_{STATES}",
        ):
            await self.connection.link.js.delete_stream(stream)
        await self.connection.streams.ensure()
        self.connection.link.gaps.notify()

    async def restored(self) -> set[str]:
        """Return the keys of the tasks that are restored within the expected time."""
        with capture_logs() as lines:
            await asyncio.sleep(LONG)
        return {line["key"] for line in lines if line["event"] == "task.restored"}


@asynccontextmanager
async def web(fleet: Fleet) -> AsyncIterator[Web]:
    async with fleet.connection() as connection:
        ready = Web(connection)
        async with in_background(ready.restorer.restore_after_outages()):
            yield ready


def test_only_tasks_that_the_engine_lost_are_created_again(fleet: Fleet) -> None:
    lost, repair, ended = an_archive(), an_archive(), an_archive()

    async def play() -> None:
        async with web(fleet) as here:
            await here.queue.enqueue(lost)
            await here.queue.enqueue(repair, priority=Priority.LOW)
            await here.queue.enqueue(ended)
            index = JetStreamIndex(connection=here.connection, storage=MemoryStorage())
            await index.record(ended, copies_of(ended))
            await here.wipe()
            assert await here.restored() == {lost.key}
            assert await here.queue.enqueue(lost) is EnqueueOutcome.JOINED

    asyncio.run(play())


@pytest.mark.thorough
def test_restored_tasks_belong_to_their_client(fleet: Fleet) -> None:
    """A flood that was lost must not come first."""

    async def play() -> tuple[int, set[str]]:
        archives = [an_archive() for _ in range(LIGHT_MAX + 2)]
        async with web(fleet) as here:
            for archive in archives:
                await here.queue.enqueue(archive, client="a")
            await here.wipe()
            assert len(await here.restored()) == len(archives)
            subjects = await here.connection.tasks.subjects(most=100)
            lanes = {here.connection.tasks.parse(subject).priority for subject in subjects or ()}
            return await here.connection.tasks.open_tasks(client_token("a")), lanes

    assert asyncio.run(play()) == (LIGHT_MAX + 2, {"hi", "parked"})


@pytest.mark.thorough
def test_an_outage_without_a_loss_creates_nothing(fleet: Fleet) -> None:
    async def play() -> None:
        async with web(fleet) as here:
            await here.queue.enqueue(an_archive())
            here.connection.link.gaps.notify()
            assert await here.restored() == set()

    asyncio.run(play())


def test_a_running_task_is_left_to_its_worker(fleet: Fleet) -> None:
    archive, go_on, builds = an_archive(), asyncio.Event(), []

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        builds.append(attempt.id)
        await go_on.wait()
        return copies_of(archive)

    async def play() -> None:
        async with web(fleet) as here, fleet.worker(build):
            await here.queue.enqueue(archive)
            await until(here.queue, archive, TaskState.STARTED)
            await here.wipe()
            assert await here.restored() == set()
            go_on.set()
            await until(here.queue, archive, TaskState.SUCCESS)

    asyncio.run(play())
    assert len(builds) == 1


@pytest.mark.thorough
def test_a_failed_task_is_not_created_again(fleet: Fleet) -> None:
    archive = an_archive()

    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Busy("for ever")

    async def play() -> None:
        async with web(fleet) as here:
            await here.queue.enqueue(archive)
            async with fleet.worker(build, policy=replace(POLICY, max_failures=1)):
                await until(here.queue, archive, TaskState.FAILURE)
            here.connection.link.gaps.notify()
            assert await here.restored() == set()

    asyncio.run(play())
