"""Parked tasks that a light client joins, on a real server."""

import asyncio
from collections import Counter

import pytest

from archiver.errors import EngineFull, EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.task_stream import StoredMessage
from archiver.jetstream.task_subject import PARKED, TaskSubject, client_token
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt
from archiver.tasks import LIGHT_MAX, Priority
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive, copies_of, limited

JOINED = EnqueueOutcome.JOINED


async def parked(queue: JetStreamTaskQueue, count: int = 1) -> list[Archive]:
    """Create tasks of one client without a worker, and return the *count* last ones."""
    archives = [an_archive() for _ in range(LIGHT_MAX + count)]
    for archive in archives:
        await queue.enqueue(archive, client="flood")
    return archives[LIGHT_MAX:]


async def subject_of(connection: Connection, archive: Archive) -> TaskSubject:
    message = await connection.tasks.find(archive.key_hash)
    assert message
    return connection.tasks.parse(message.subject)


def test_a_promoted_task_stays_an_open_task_of_its_client(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue)
            assert await queue.enqueue(archive, client="other") is JOINED
            subject = await subject_of(connection, archive)
            assert (subject.priority, subject.client) == (Priority.HIGH, client_token("flood"))
            assert await connection.tasks.count() == LIGHT_MAX + 1
            assert await connection.tasks.open_tasks(client_token("other")) == 0

    asyncio.run(play())


def test_a_task_of_the_client_itself_waits_for_its_turn(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue)
            tasks = connection.tasks
            for lane in await tasks.subjects(most=100) or ():
                if tasks.parse(lane).priority != PARKED and (found := await tasks.last(lane)):
                    await tasks.remove(lane, revision=found.revision)
            assert await tasks.open_tasks(client_token("flood")) == 1
            assert await queue.enqueue(archive, client="flood") is JOINED
            assert (await subject_of(connection, archive)).priority == PARKED

    asyncio.run(play())


def test_a_light_client_of_a_crowd_promotes_although_another_client_leads(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue)
            clients = ("flood",) * 5 + ("other",) * 5
            outcomes = [queue.enqueue(archive, client=client) for client in clients]
            assert {*await asyncio.gather(*outcomes)} == {JOINED}
            assert (await subject_of(connection, archive)).priority == Priority.HIGH

    asyncio.run(play())


def test_a_crowd_of_clients_promotes_a_task_once(fleet: Fleet) -> None:
    """The others keep what they may promote."""

    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            first, *others = await parked(queue, 1 + LIGHT_MAX)
            clients = [f"client {number}" for number in range(20)]
            await asyncio.gather(*(queue.enqueue(first, client=client) for client in clients))
            assert (await subject_of(connection, first)).priority == Priority.HIGH
            for other in others:
                await queue.enqueue(other, client=clients[-1])
            found = [(await subject_of(connection, other)).priority for other in others]
            assert found == [Priority.HIGH] * LIGHT_MAX

    asyncio.run(play())


def test_tasks_that_are_moved_and_promoted_at_the_same_time_are_built_once(fleet: Fleet) -> None:
    built: Counter[Archive] = Counter()
    created: Counter[Archive] = Counter()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built[archive] += 1
        return copies_of(archive)

    async def join(queue: JetStreamTaskQueue, archive: Archive, client: str) -> None:
        """Join a task, or create another one if it has ended by now."""
        outcome = await queue.enqueue(archive, client=client)
        created[archive] += outcome is EnqueueOutcome.CREATED

    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as one, fleet.queue() as two:
            archives = await parked(one, 40)
            created.update(archives)
            async with fleet.worker(build), fleet.worker(build):
                for number, archive in enumerate(reversed(archives)):
                    client = f"client {number}"
                    await asyncio.gather(join(one, archive, client), join(two, archive, client))
                async with asyncio.timeout(HUNG_AFTER_S):
                    while await connection.tasks.count():
                        await asyncio.sleep(0.02)

    asyncio.run(play())
    assert {archive: built[archive] for archive in created} == created


def test_a_full_queue_promotes_nothing_and_its_tasks_are_joined(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue)
            async with limited(connection, connection.tasks.name, max_msgs=LIGHT_MAX + 1):
                with pytest.raises(EngineFull):
                    await queue.enqueue(an_archive(), client="other")
                assert await queue.enqueue(archive, client="other") is JOINED
            assert (await subject_of(connection, archive)).priority == PARKED

    asyncio.run(play())


@pytest.mark.parametrize("method", ("open_tasks", "move"))
def test_an_engine_that_fails_during_a_promotion_fails_no_request(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def fail(*_args: StoredMessage | str) -> int:
        raise EngineUnavailable("the engine does not answer")

    async def play() -> None:
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            (archive,) = await parked(queue)
            monkeypatch.setattr(connection.tasks, method, fail)
            assert await queue.enqueue(archive, client="other") is JOINED
            assert (await subject_of(connection, archive)).priority == PARKED

    asyncio.run(play())
