"""Parked tasks, and how they get to the middle lane, on a real server."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import pytest
from nats.js.api import ConsumerInfo

from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import consumer_name, share_of_cap
from archiver.jetstream.lanes import room_of
from archiver.jetstream.parking import Parking, next_in_turn
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.task_subject import PARKED, client_token
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt
from archiver.ports.task_list import ListedTask
from archiver.runtime.tasks import in_background
from archiver.tasks import LIGHT_MAX, Priority, TaskState, Urgency
from archiver.upkeep.census import Census, Wanted
from tests.parts.fleet import CAPS, HUNG_AFTER_S, LEASE, POLICY, Fleet, an_archive, copies_of, until

MIDDLE = Priority.MIDDLE
SOURCE = "hgmo"


class Builds:
    """Counts the builds of each archive. They end once ``go`` is set."""

    def __init__(self) -> None:
        self.count: Counter[Archive] = Counter()
        self.go = asyncio.Event()

    async def __call__(self, archive: Archive, _attempt: Attempt) -> Copies:
        self.count[archive] += 1
        await self.go.wait()
        return copies_of(archive)


async def parked(queue: JetStreamTaskQueue, count: int, client: str = "a") -> list[Archive]:
    """Create tasks of *client* without a worker, and return the *count* last ones: all parked."""
    archives = [an_archive() for _ in range(LIGHT_MAX + count)]
    for archive in archives:
        await queue.enqueue(archive, client=client)
    return archives[LIGHT_MAX:]


async def emptied(connection: Connection) -> None:
    async with asyncio.timeout(HUNG_AFTER_S):
        while await connection.tasks.count():
            await asyncio.sleep(0.02)


def test_a_parked_task_is_open_pending_and_joined_like_any_other(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            archive, *_ = await parked(queue, 3)
            assert await connection.tasks.count_in(PARKED, SOURCE) == 3
            assert await connection.tasks.open_tasks(client_token("a")) == LIGHT_MAX + 3
            for client in ("a", "b", ""):
                assert await queue.enqueue(archive, client=client) is EnqueueOutcome.JOINED
            task = await queue.task(archive)
            assert task
            assert task.state is TaskState.PENDING

    asyncio.run(play())


def test_the_middle_lane_gets_no_more_tasks_than_it_has_room_for(fleet: Fleet) -> None:
    builds, room = Builds(), room_of(share_of_cap(CAPS[SOURCE], MIDDLE))

    async def play() -> list[int]:
        async with fleet.connection() as connection, fleet.queue() as queue:
            await parked(queue, 40)
            async with fleet.worker(builds, policy=replace(POLICY, concurrency=1)):
                waiting: list[int] = []
                async with asyncio.timeout(HUNG_AFTER_S):
                    while len(waiting) < 20 or max(waiting) < room:
                        lane = await connection.tasks.consumer(consumer_name(SOURCE, MIDDLE))
                        waiting.append(lane.num_pending or 0 if lane else 0)
                builds.go.set()
                await emptied(connection)
            return waiting

    assert room <= max(asyncio.run(play())) < 2 * room
    assert set(builds.count.values()) == {1}


def test_deliveries_of_messages_that_are_gone_do_not_keep_deferred_tasks_outside(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NATS server that was killed remembers some, as many as there were messages in the lane."""
    haunting = share_of_cap(CAPS[SOURCE], MIDDLE)

    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            tasks = connection.tasks
            read = tasks.consumer

            async def haunted(name: str) -> ConsumerInfo | None:
                lane = await read(name)
                return lane and replace(lane, num_ack_pending=haunting)

            async with (
                open_work_queue(connection=connection, caps=CAPS, lease=LEASE),
                asyncio.timeout(HUNG_AFTER_S),
            ):
                while not await read(consumer_name(SOURCE, MIDDLE)):
                    await asyncio.sleep(0.02)
            monkeypatch.setattr(tasks, "consumer", haunted)
            await queue.enqueue(an_archive(), client="a", urgency=Urgency.LATER)
            parking = Parking(tasks=tasks, caps=CAPS)
            async with in_background(parking.keep_lanes_filled()), asyncio.timeout(HUNG_AFTER_S):
                while not await tasks.count_in(MIDDLE, SOURCE):
                    await asyncio.sleep(0.02)

    asyncio.run(play())


@pytest.mark.thorough
def test_several_workers_build_each_parked_task_once(fleet: Fleet) -> None:
    builds = Builds()
    builds.go.set()

    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            for client in ("a", "b", "c"):
                await parked(queue, 20, client)
            async with fleet.worker(builds), fleet.worker(builds), fleet.worker(builds):
                await emptied(connection)

    asyncio.run(play())
    assert len(builds.count) == 3 * (LIGHT_MAX + 20)
    assert set(builds.count.values()) == {1}


@pytest.mark.thorough
def test_a_move_that_was_interrupted_is_completed(fleet: Fleet) -> None:
    """The worker died after it had stored the task in the lane."""
    builds = Builds()
    builds.go.set()

    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue, 1)
            tasks, client = connection.tasks, client_token("a")
            message = await tasks.find(archive.key_hash)
            assert message
            target = tasks.subject(MIDDLE, SOURCE, client, archive.key_hash)
            await tasks.publish_new(target, message.value, last=message.revision)
            assert await tasks.count() == LIGHT_MAX + 2
            async with fleet.worker(builds):
                await emptied(connection)
                await until(queue, archive, TaskState.SUCCESS)
            assert builds.count[archive] == 1

    asyncio.run(play())


def test_a_task_that_was_parked_again_survives_a_late_move(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            (archive,) = await parked(queue, 1)
            tasks, client = connection.tasks, client_token("a")
            target = tasks.subject(MIDDLE, SOURCE, client, archive.key_hash)
            late = await tasks.find(archive.key_hash)
            assert late
            await tasks.remove(late.subject, revision=late.revision)
            assert await queue.enqueue(archive, client="a") is EnqueueOutcome.CREATED
            await tasks.move(late, target)
            found = await tasks.find(archive.key_hash)
            assert found
            assert tasks.parse(found.subject).priority == PARKED

    asyncio.run(play())


@pytest.mark.parametrize(
    ("last", "client"), (("", "a"), ("a", "b"), ("b", "c"), ("bb", "c"), ("c", "a"))
)
def test_the_next_turn_is_that_of_the_next_client(last: str, client: str) -> None:
    assert next_in_turn({"c", "a", "b"}, last) == client


def test_a_task_that_moves_while_the_queue_is_listed_is_listed_once(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            archive, last = await parked(queue, 2)
            tasks = connection.tasks
            target = tasks.subject(MIDDLE, SOURCE, client_token("a"), archive.key_hash)
            first = await tasks.first(tasks.subject(PARKED, SOURCE, "*", archive.key_hash))
            assert first
            move = partial(tasks.move, first, target)

            class Moving(JetStreamTaskList):
                async def oldest(self, source: str | None = None) -> AsyncGenerator[ListedTask]:
                    async with aclosing(super().oldest(source)) as oldest:
                        async for listed in oldest:
                            yield listed
                            if listed.task.archive == last:
                                await move()

            wanted = Wanted(state=TaskState.PENDING, limit=LIGHT_MAX + 3)
            overview = await Census(tasks=Moving(connection=connection)).take(wanted)
            listed = [each.task.archive for each in overview.tasks]
            assert len(listed) == LIGHT_MAX + 2
            assert {archive, last} <= {*listed}

    asyncio.run(play())
