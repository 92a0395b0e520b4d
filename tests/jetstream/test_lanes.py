"""The lanes of clients, and messages of earlier versions, on a real server."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import consumer_name, share_of_cap
from archiver.jetstream.lanes import Lanes, Load, choose_lane, room_of
from archiver.jetstream.records import Order, encode
from archiver.jetstream.task_subject import PARKED, TaskSubject, client_token
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt
from archiver.tasks import LIGHT_MAX, Priority, TaskState
from tests.parts.fleet import CAPS, HUNG_AFTER_S, LEASE, Fleet, an_archive, copies_of, until

HIGH, MIDDLE = Priority.HIGH, Priority.MIDDLE
CROWD = 60


def load(*, waiting: int = 0, running: int = 0, share: int = 2, created: int = 0) -> Load:
    return Load(waiting=waiting, running=running, share=share, created=created)


@pytest.mark.parametrize(
    ("open_tasks", "high", "middle", "lane"),
    (
        (0, load(), load(share=4), HIGH),
        (LIGHT_MAX - 1, load(running=1), load(running=2, share=4), HIGH),
        (0, load(running=2, waiting=2), load(running=4, share=4), MIDDLE),
        (0, load(running=2, created=1), load(share=4), MIDDLE),
        (0, load(running=2, waiting=9), load(running=4, waiting=500, share=4), HIGH),
        (LIGHT_MAX, load(running=2), load(running=4, waiting=7, share=4), MIDDLE),
        (LIGHT_MAX, load(running=2), load(running=4, waiting=7, created=1, share=4), PARKED),
        (LIGHT_MAX, load(running=1), load(running=4, waiting=500, share=4), HIGH),
        (LIGHT_MAX, load(running=1, created=1), load(share=4), MIDDLE),
    ),
)
def test_the_lane_depends_on_the_client_and_on_what_waits(
    open_tasks: int, high: Load, middle: Load, lane: str
) -> None:
    assert choose_lane({HIGH: high, MIDDLE: middle}, open_tasks=open_tasks) == lane


@pytest.mark.parametrize("parked", (load(waiting=1), load(created=1)))
def test_a_task_does_not_pass_those_that_are_parked(parked: Load) -> None:
    loads = {HIGH: load(running=2), MIDDLE: load(share=4), PARKED: parked}
    assert choose_lane(loads, open_tasks=LIGHT_MAX) == PARKED
    assert choose_lane(loads, open_tasks=0) == MIDDLE


@pytest.mark.parametrize(
    ("open_tasks", "known", "lane"),
    (
        (0, (), HIGH),
        (LIGHT_MAX, (), PARKED),
        (LIGHT_MAX, (HIGH,), HIGH),  # all workers are of an earlier version
    ),
)
def test_a_lane_without_a_worker_is_used_only_if_there_is_no_worker(
    open_tasks: int, known: tuple[Priority, ...], lane: str
) -> None:
    assert choose_lane(dict.fromkeys(known, load()), open_tasks=open_tasks) == lane


def test_a_crowd_of_light_clients_uses_the_shares_of_both_lanes(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> list[str]:
        async with fleet.connection() as connection, fleet.worker(build):
            async with asyncio.timeout(HUNG_AFTER_S):
                for lane in (HIGH, MIDDLE):
                    while not await connection.tasks.consumer(consumer_name("hgmo", lane)):
                        await asyncio.sleep(0.01)
            lanes = Lanes(tasks=connection.tasks)
            return [await lanes.choose("hgmo", open_tasks=0) for _ in range(CROWD)]

    chosen = asyncio.run(play())
    assert chosen.count(MIDDLE) == 2 * chosen.count(HIGH)


def test_several_web_processes_fill_the_lanes_no_further_than_one(fleet: Fleet) -> None:
    room = share_of_cap(CAPS["hgmo"], HIGH) + room_of(share_of_cap(CAPS["hgmo"], MIDDLE))

    async def play() -> int:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(fleet.connection())
            tasks = connection.tasks
            async with (
                open_work_queue(connection=connection, caps=CAPS, lease=LEASE),
                asyncio.timeout(HUNG_AFTER_S),
            ):
                for lane in (HIGH, MIDDLE):
                    while not await tasks.consumer(consumer_name("hgmo", lane)):
                        await asyncio.sleep(0.02)
            queues = [await stack.enter_async_context(fleet.queue()) for _ in range(4)]
            for number in range(40):
                await queues[number % 4].enqueue(an_archive(), client="a")
            return await tasks.count_in(HIGH, "hgmo") + await tasks.count_in(MIDDLE, "hgmo")

    assert asyncio.run(play()) <= room + LIGHT_MAX


def test_a_load_counts_each_task_once_that_is_created_here_or_heard_of() -> None:
    lane = load(waiting=1)
    for count in (lane.count, lane.hear, lane.hear, lane.count, lane.count, lane.hear):
        count()
    assert (lane.created, lane.unheard) == (4, 1)


def test_a_subject_names_its_client_by_a_token_without_special_characters() -> None:
    token = client_token("2001:db8::/64 * > .")
    subject = f"archiver.tasks.hi.hgmo.{token}.{'0' * 64}"

    assert TaskSubject.parse(subject, prefix="archiver.tasks.") == ("hi", "hgmo", token, "0" * 64)
    assert len(subject.split(".")) == 6
    assert client_token("a") != client_token("b")


async def publish_without_client(connection: Connection, archive: Archive) -> None:
    """Store a task as the version before did."""
    subject = f"{connection.streams.namespace}.tasks.hi.{archive.source}.{archive.key_hash}"
    order = encode(Order(key=archive.key, created_at=datetime.now(UTC)))
    await connection.streams.publish(subject, order, {"Nats-Expected-Last-Subject-Sequence": "0"})


async def _build(archive: Archive, _attempt: Attempt) -> Copies:
    return copies_of(archive)


def test_a_message_of_an_earlier_version_is_found_joined_and_claimed(fleet: Fleet) -> None:
    async def play() -> None:
        archive = an_archive()
        async with fleet.connection() as connection, fleet.queue() as queue:
            await publish_without_client(connection, archive)
            task = await queue.task(archive)
            assert task
            assert task.state is TaskState.PENDING
            for client in ("", "a"):
                assert await queue.enqueue(archive, client=client) is EnqueueOutcome.JOINED
            assert await connection.tasks.count() == 1
            async with fleet.worker(_build):
                await until(queue, archive, TaskState.SUCCESS)

    asyncio.run(play())


def test_an_unreadable_message_of_an_earlier_version_blocks_no_task(fleet: Fleet) -> None:
    async def play() -> EnqueueOutcome:
        archive = an_archive()
        async with fleet.connection() as connection, fleet.queue() as queue:
            subject = f"{fleet.namespace}.tasks.hi.{archive.source}.{archive.key_hash}"
            await connection.streams.publish(subject, b"?", {})
            return await queue.enqueue(archive, client="a")

    assert asyncio.run(play()) is EnqueueOutcome.CREATED


@pytest.mark.thorough
def test_a_consumer_of_an_earlier_version_is_widened_and_misses_nothing(fleet: Fleet) -> None:
    """A task with a client waits before one without, which the earlier worker has built."""

    async def play() -> None:
        new, old = an_archive(), an_archive()
        async with fleet.connection() as connection, fleet.queue() as queue:
            name = consumer_name("hgmo", HIGH)
            await connection.tasks.ensure_consumer(
                ConsumerConfig(
                    durable_name=name,
                    filter_subject=f"{fleet.namespace}.tasks.hi.hgmo.*",
                    ack_policy=AckPolicy.EXPLICIT,
                )
            )
            await queue.enqueue(new, client="a")
            await publish_without_client(connection, old)
            pulling = await connection.link.js.pull_subscribe_bind(name, connection.tasks.name)
            await (await pulling.fetch(1, HUNG_AFTER_S))[0].ack_sync()
            await pulling.unsubscribe()
            async with fleet.worker(_build):
                await until(queue, new, TaskState.SUCCESS)

    asyncio.run(play())


@pytest.mark.thorough
def test_a_queue_that_an_earlier_version_has_narrowed_is_widened_again(fleet: Fleet) -> None:
    async def play() -> EnqueueOutcome:
        async with fleet.connection() as connection, fleet.queue() as queue:

            async def hear(_message: Msg) -> None:
                """A worker that listens keeps the server from reporting the missing stream."""

            js = connection.link.js
            config = (await js.stream_info(connection.tasks.name)).config
            await js.update_stream(config.evolve(subjects=[f"{fleet.namespace}.tasks.*.*.*"]))
            await connection.link.subscriptions.subscribe(connection.tasks.all, hear)
            return await queue.enqueue(an_archive(), client="a")

    assert asyncio.run(play()) is EnqueueOutcome.CREATED
