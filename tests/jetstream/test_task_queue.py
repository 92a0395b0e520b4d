"""How tasks are created, joined and reported, on a real server."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from nats.aio.msg import Msg

from archiver.errors import EngineFull, EngineUnavailable
from archiver.jetstream.fleet import JetStreamFleet
from archiver.jetstream.link import Servers
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt
from archiver.tasks import Priority, TaskState
from tests.parts.fleet import (
    HUNG_AFTER_S,
    POLICY,
    Busy,
    Fleet,
    Refused,
    an_archive,
    copies_of,
    limited,
    until,
)
from tests.parts.process import free_port


def test_one_of_many_requests_creates_the_task_and_the_others_join_it(fleet: Fleet) -> None:
    async def ask() -> Counter[EnqueueOutcome]:
        archive = an_archive()
        async with fleet.queue() as one, fleet.queue() as two, fleet.queue() as three:
            queues = [one, two, three] * 30
            return Counter(await asyncio.gather(*(e.enqueue(archive) for e in queues)))

    assert asyncio.run(ask()) == {EnqueueOutcome.CREATED: 1, EnqueueOutcome.JOINED: 89}


def test_a_task_of_another_priority_is_joined_too(fleet: Fleet) -> None:
    async def ask() -> list[EnqueueOutcome]:
        archive = an_archive()
        async with fleet.queue() as queue:
            return [await queue.enqueue(archive, priority=p) for p in (Priority.LOW, *Priority)]

    created, *joined = asyncio.run(ask())
    assert created is EnqueueOutcome.CREATED
    assert joined == [EnqueueOutcome.JOINED] * len(Priority)


@pytest.mark.parametrize("limit", ({"max_msgs": 1}, {"max_bytes": 1}), ids=("messages", "bytes"))
def test_a_full_queue_accepts_no_task(fleet: Fleet, limit: Mapping[str, int]) -> None:
    async def play() -> tuple[object, ...]:
        queued, refused = an_archive(), an_archive()
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            await queue.enqueue(queued)
            async with limited(connection, connection.tasks.name, **limit):
                with pytest.raises(EngineFull):
                    await queue.enqueue(refused)
                outcomes = await queue.task(refused), await queue.enqueue(queued)
            return (*outcomes, await queue.enqueue(refused))

    assert asyncio.run(play()) == (None, EnqueueOutcome.JOINED, EnqueueOutcome.CREATED)


BEING_STORED = b'{"error": {"code": 400, "err_code": 10164, "description": ""}}'
STORED = b'{"stream": "tasks", "seq": 1}'


def test_a_task_that_a_cluster_is_storing_is_joined_only_once_it_is_stored(fleet: Fleet) -> None:
    async def enqueue(*answers: bytes) -> EnqueueOutcome:
        """Enqueue a task while the server gives these *answers*, and repeats the last one."""
        left = list(answers)

        async def answer(message: Msg) -> None:
            await message.respond(left.pop(0) if len(left) > 1 else left[0])

        async with fleet.connection() as connection:
            elsewhere = [f"{connection.streams.namespace}.elsewhere"]
            async with limited(connection, connection.tasks.name, subjects=elsewhere):
                client = connection.link.client
                await client.subscribe(f"{connection.streams.namespace}.tasks.>", cb=answer)
                return await JetStreamTaskQueue(connection=connection).enqueue(an_archive())

    assert asyncio.run(enqueue(BEING_STORED, STORED)) is EnqueueOutcome.CREATED
    with pytest.raises(EngineUnavailable):
        asyncio.run(enqueue(BEING_STORED))


def test_a_task_goes_from_pending_through_started_to_success(fleet: Fleet) -> None:
    async def play() -> list[TaskState | None]:
        archive = an_archive()
        go_on = asyncio.Event()

        async def build(archive: Archive, _attempt: Attempt) -> Copies:
            await go_on.wait()
            return copies_of(archive)

        async with fleet.queue() as queue:
            seen: list[TaskState | None] = [await _state(queue, archive)]
            await queue.enqueue(archive)
            seen.append(await _state(queue, archive))
            async with fleet.worker(build):
                seen.append((await until(queue, archive, TaskState.STARTED)).state)
                go_on.set()
                seen.append((await until(queue, archive, TaskState.SUCCESS)).state)
        return seen

    states = [None, TaskState.PENDING, TaskState.STARTED, TaskState.SUCCESS]
    assert asyncio.run(play()) == states


async def _state(queue: JetStreamTaskQueue, archive: Archive) -> TaskState | None:
    task = await queue.task(archive)
    return task.state if task else None


def test_after_a_failure_a_new_request_creates_a_new_task(fleet: Fleet) -> None:
    async def refuse(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Refused("no")

    async def play() -> tuple[EnqueueOutcome, TaskState]:
        archive = an_archive()
        async with fleet.queue() as queue:
            await queue.enqueue(archive)
            async with fleet.worker(refuse):
                await until(queue, archive, TaskState.FAILURE)
            return await queue.enqueue(archive), (
                await until(queue, archive, TaskState.PENDING)
            ).state

    assert asyncio.run(play()) == (EnqueueOutcome.CREATED, TaskState.PENDING)


def test_every_process_receives_the_reason_of_a_final_failure(fleet: Fleet) -> None:
    async def refuse(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Refused("no such thing")

    async def play() -> str | None:
        archive = an_archive()
        async with fleet.queue() as asked, fleet.queue() as other:
            assert other.recent_failure(archive) is None
            await asked.enqueue(archive)
            async with fleet.worker(refuse):
                await until(asked, archive, TaskState.FAILURE)
                async with asyncio.timeout(HUNG_AFTER_S):
                    while (failure := other.recent_failure(archive)) is None:
                        await asyncio.sleep(0.02)
            return failure.message

    assert asyncio.run(play()) == "no such thing"


def test_a_retryable_failure_does_not_block_the_next_request(
    fleet: Fleet,
) -> None:
    async def busy(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Busy("come back later")

    async def play() -> object:
        archive = an_archive()
        async with fleet.queue() as queue:
            await queue.enqueue(archive)
            async with fleet.worker(busy, policy=replace(POLICY, max_failures=1)):
                await until(queue, archive, TaskState.FAILURE)
                await asyncio.sleep(0.1)
            return queue.recent_failure(archive)

    assert asyncio.run(play()) is None


def test_a_process_starts_and_answers_without_a_server(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def check() -> object:
        async with fleet.connection() as connection:
            return await JetStreamFleet(connection=connection).check_queue()

    assert getattr(asyncio.run(check()), "code", None) == "engine_unavailable"
