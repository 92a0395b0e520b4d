"""Leases and their fences in NATS: two attempts at one task, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from nats.aio.msg import Msg

from archiver.errors import LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import SourceConsumer
from archiver.jetstream.leases import JetStreamLease
from archiver.jetstream.records import decode_task
from archiver.jetstream.stored_task import TaskMessage
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import Archive
from archiver.status import Status
from archiver.tasks import Phase, Priority, TaskState
from archiver.web.api.status import render
from tests.parts.fleet import HUNG_AFTER_S, LEASE, Busy, Fleet, an_archive, delete, limited


class Bench:
    """A consumer of one source, and leases on the messages that it delivers."""

    def __init__(self, connection: Connection, archive: Archive) -> None:
        self.connection = connection
        self.archive = archive
        self.queue = JetStreamTaskQueue(connection=connection)
        self.consumer = SourceConsumer(
            connection=connection,
            source=archive.source,
            priority=Priority.HIGH,
            cap=8,
            lease=LEASE,
        )

    async def message(self, within: timedelta = timedelta(seconds=HUNG_AFTER_S)) -> Msg:
        """Return the next delivery of the task."""
        await self.consumer.ensure()
        stream = self.connection.tasks.name
        subscription = await self.connection.link.js.pull_subscribe_bind(self.consumer.name, stream)
        try:
            return (await subscription.fetch(1, within.total_seconds()))[0]
        finally:
            await subscription.unsubscribe()

    def lease(self, message: Msg) -> JetStreamLease:
        task_message = TaskMessage(message, connection=self.connection)
        readable = task_message.order()
        assert readable
        return JetStreamLease(
            connection=self.connection,
            message=task_message,
            order=readable[0],
            archive=self.archive,
            duration=LEASE,
        )

    async def state(self) -> TaskState | None:
        task = await self.queue.task(self.archive)
        return task.state if task else None


@asynccontextmanager
async def bench(fleet: Fleet) -> AsyncIterator[Bench]:
    """Yield a bench with one waiting task."""
    archive = an_archive()
    async with fleet.connection() as connection:
        ready = Bench(connection, archive)
        await ready.queue.enqueue(archive)
        yield ready


def test_an_attempt_that_lost_its_lease_can_neither_commit_nor_end_the_task(fleet: Fleet) -> None:
    async def play() -> TaskState | None:
        async with bench(fleet) as here:
            message = await here.message()
            silent = here.lease(message)
            assert await silent.begin()
            other = here.lease(await here.message())  # after a lease without a heartbeat
            assert await other.begin()

            with pytest.raises(LeaseLost):
                await silent.prove_lease()
            with pytest.raises(LeaseLost):
                await silent.fail(Busy("I am late"))
            with pytest.raises(LeaseLost):
                await here.lease(message).begin()
            await other.prove_lease()
            await other.succeed()
            return await here.state()

    assert asyncio.run(play()) is TaskState.SUCCESS


def test_vanished_workers_are_counted(fleet: Fleet) -> None:
    async def play() -> list[int]:
        async with bench(fleet) as here:
            message = await here.message()
            leases = [here.lease(message) for _ in range(3)]
            for lease in leases:
                assert await lease.begin()
            return [lease.vanished for lease in leases]

    assert asyncio.run(play()) == [0, 1, 2]


def test_a_task_that_was_given_back_is_claimed_although_its_consumer_was_recreated(
    fleet: Fleet,
) -> None:
    async def play() -> tuple[list[int], int]:
        async with bench(fleet) as here:
            deliveries = [await here.message()]
            lease = here.lease(deliveries[-1])
            assert await lease.begin()
            await lease.hand_back()
            deliveries.append(await here.message())
            lease = here.lease(deliveries[-1])
            assert await lease.begin()
            await lease.hand_back()
            await here.connection.tasks.delete_consumer(here.consumer.name)
            deliveries.append(await here.message())
            lease = here.lease(deliveries[-1])
            assert await lease.begin()
            return [message.metadata.num_delivered for message in deliveries], lease.attempt

    assert asyncio.run(play()) == ([1, 2, 1], 3)


def test_a_task_that_is_handed_back_after_a_failure_has_its_own_status(fleet: Fleet) -> None:
    async def play() -> dict[str, object]:
        async with bench(fleet) as here:
            failing = here.lease(await here.message())
            assert await failing.begin()
            await failing.retry(Busy("the host is busy"), after=timedelta(0))
            stopping = here.lease(await here.message())
            assert await stopping.begin()
            await stopping.hand_back()
            task = await here.queue.task(here.archive)
            assert task
            return render(Status(task=task, source_url=""))

    status = asyncio.run(play())
    assert status["status"] == "Handed back by a worker that stopped; another one will take it."
    assert (status["state"], status["failures"], status["error"]) == ("RETRY", 1, None)


def test_a_lease_survives_a_wipe_of_its_record(fleet: Fleet) -> None:
    async def play() -> TaskState | None:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            bucket = f"{fleet.namespace}_{STATES}"
            await here.connection.link.js.delete_stream(f"KV_{bucket}")

            lease.report(Phase.FETCHING, 10)
            await lease.prove_lease()
            await lease.succeed()
            return await here.state()

    assert asyncio.run(play()) is TaskState.SUCCESS


def test_a_lease_whose_message_was_wiped_can_still_end(fleet: Fleet) -> None:
    async def play(*, asked_anew: bool) -> TaskState | None:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            await here.connection.link.js.delete_stream(here.connection.tasks.name)
            await here.connection.streams.ensure()
            if asked_anew:
                await here.queue.enqueue(an_archive())  # it gets the number of the lost message
                await here.queue.enqueue(here.archive)
            async with asyncio.timeout(HUNG_AFTER_S):
                await lease.succeed()
            entry = await here.connection.kv.get(STATES, here.archive.key_hash)
            record = decode_task(entry.value) if entry else None
            return record.state if record else None

    assert asyncio.run(play(asked_anew=False)) is TaskState.SUCCESS
    assert asyncio.run(play(asked_anew=True)) is TaskState.SUCCESS


def test_after_a_wipe_of_the_queue_a_new_task_is_not_mistaken_for_the_old_one(
    fleet: Fleet,
) -> None:
    async def play() -> bool:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            await lease.fail(Busy("for good"))
            await here.connection.link.js.delete_stream(here.connection.tasks.name)
            await here.connection.streams.ensure()
            await here.queue.enqueue(here.archive)
            assert await here.state() is TaskState.PENDING
            return await here.lease(await here.message()).begin()

    assert asyncio.run(play())


def test_a_redelivered_message_of_an_ended_task_is_not_run_again(fleet: Fleet) -> None:
    async def play() -> bool:
        async with bench(fleet) as here:
            message = await here.message()
            lease = here.lease(message)
            assert await lease.begin()
            await lease.succeed()
            return await here.lease(message).begin()

    assert asyncio.run(play()) is False


def test_a_task_that_was_moved_again_after_it_ended_is_not_run_again(fleet: Fleet) -> None:
    """Of two processes that move a task, the second may do so after a short build."""

    async def play() -> bool:
        async with bench(fleet) as here:
            tasks = here.connection.tasks
            before = await tasks.find(here.archive.key_hash)
            lease = here.lease(await here.message())
            assert before
            assert await lease.begin()
            await lease.succeed()
            await tasks.publish_new(before.subject, before.value)
            return await here.lease(await here.message()).begin()

    assert not asyncio.run(play())


def test_an_attempt_survives_a_time_without_writes(fleet: Fleet) -> None:
    async def play() -> tuple[int, TaskState | None]:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            async with limited(here.connection, f"KV_{fleet.namespace}_{STATES}", max_bytes=1):
                lease.report(Phase.FETCHING, 1)
                await lease.prove_lease()
            await lease.prove_lease()
            await lease.succeed()
            return lease.attempt, await here.state()

    assert asyncio.run(play()) == (1, TaskState.SUCCESS)


def test_a_deleted_record_is_written_again(fleet: Fleet) -> None:
    async def play() -> TaskState | None:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            await delete(here.connection, STATES, here.archive.key_hash)
            await lease.succeed()
            return await here.state()

    assert asyncio.run(play()) is TaskState.SUCCESS
