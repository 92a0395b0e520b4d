"""The fleet's streams on one server and on three, and the way between."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, ConsumerInfo, SequenceInfo
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import SourceConsumer, consumer_name
from archiver.jetstream.fleet import PROBE_PRIORITY, JetStreamFleet, QueueProbe
from archiver.jetstream.link import Servers
from archiver.jetstream.replication import Replication, TooFewServers
from archiver.jetstream.streams import INDEX
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.runtime.tasks import in_background
from archiver.tasks import Priority
from archiver.upkeep.restore import Restorer
from tests.parts.fleet import HUNG_AFTER_S, LEASE, Fleet, an_archive
from tests.parts.nats_cluster import SIZE, Cluster, cluster

SOON = timedelta(seconds=90)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


def fleet_on(servers: Cluster, namespace: str, replicas: int) -> Fleet:
    """Return a fleet whose streams are on so many servers."""
    fleet = Fleet(servers=Servers(urls=servers.urls, replicas=replicas), namespace=namespace)
    asyncio.run(fleet.prepare())
    return fleet


def a_consumer(connection: Connection) -> SourceConsumer:
    return SourceConsumer(
        connection=connection, source="hgmo", priority=Priority.HIGH, cap=8, lease=LEASE
    )


async def replicas_of(connection: Connection) -> set[int]:
    """Return the numbers of replicas of the streams and consumers: normally one number."""
    streams = await Replication(connection=connection, configured_replicas=1).status()
    standings = [one for stream in streams for one in (stream.stream, *stream.consumers)]
    assert all(one.leader for one in standings)
    return {one.replicas for one in standings}


@pytest.mark.thorough
def test_a_process_with_another_setting_keeps_the_replicas_and_logs_once(
    three: Cluster, namespace: str
) -> None:
    fleet = fleet_on(three, namespace, replicas=3)
    other = replace(fleet, servers=replace(fleet.servers, replicas=1))

    async def play() -> tuple[set[int], list[object]]:
        async with fleet.connection() as first:
            await a_consumer(first).ensure()
        with capture_logs() as lines:
            async with asyncio.timeout(HUNG_AFTER_S), other.connection() as connection:
                while not any(line["event"] == "engine.replicas_differ" for line in lines):
                    await asyncio.sleep(0.02)
                logged = [line for line in lines if line["event"] == "engine.replicas_differ"]
                return await replicas_of(connection), [
                    (line["log_level"], line["setting"], line["actual"]) for line in logged
                ]

    assert asyncio.run(play()) == ({3}, [("warning", 1, [3])])


@pytest.mark.thorough
def test_set_replicas_moves_streams_and_consumers_and_reads_no_follower(
    three: Cluster, namespace: str
) -> None:
    fleet = fleet_on(three, namespace, replicas=1)

    async def written_and_read(connection: Connection, value: bytes) -> bool:
        while True:
            with suppress(EngineUnavailable):  # during an election
                await connection.kv.put(INDEX, "key", value)
                entry = await connection.kv.get(INDEX, "key")
                return entry is not None and entry.value == value

    async def play() -> Sequence[set[int]]:
        async with asyncio.timeout(2 * HUNG_AFTER_S), fleet.connection() as connection:
            replication = Replication(connection=connection, configured_replicas=1)
            await a_consumer(connection).ensure()
            assert await written_and_read(connection, b"one")
            before = await replicas_of(connection)
            await replication.set_replicas(3, within=SOON)
            there = await replicas_of(connection)
            infos = [
                await connection.link.js.stream_info(name) for name in connection.streams.buckets
            ]
            assert not any(info.config.allow_direct for info in infos)
            assert all([await written_and_read(connection, bytes([n])) for n in range(50)])
            await replication.set_replicas(1, within=SOON)
            assert await written_and_read(connection, b"two")
            return before, there, await replicas_of(connection)

    assert asyncio.run(play()) == ({1}, {3}, {1})


def test_more_replicas_than_servers_are_refused_without_a_change(
    fleet: Fleet,
) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            with pytest.raises(TooFewServers):
                await Replication(connection=connection, configured_replicas=1).set_replicas(
                    3, within=SOON
                )
            assert await replicas_of(connection) == {1}
        three = replace(fleet, servers=replace(fleet.servers, replicas=3))
        async with three.connection() as connection:
            await connection.streams.ensure()

    asyncio.run(play())


def test_settings_of_an_operator_on_a_stream_stay(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            info = await connection.link.js.stream_info(connection.tasks.name)
            changed = info.config.evolve(max_msgs=1 << 30, max_msgs_per_subject=2)
            await connection.link.js.update_stream(changed)
            await connection.streams.ensure()
            after = (await connection.link.js.stream_info(connection.tasks.name)).config
            assert (after.max_msgs, after.max_msgs_per_subject) == (1 << 30, 1)

    asyncio.run(play())


def test_the_probe_succeeds_until_a_stream_stores_no_messages(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection, fleet.queue() as queue:
            await queue.enqueue(an_archive())
            probe, replication = (
                QueueProbe(connection=connection),
                Replication(connection=connection, configured_replicas=1),
            )
            await probe.prove_delivery()
            await probe.prove_delivery()
            found = {status.stream.name: status for status in await replication.status()}
            tasks = found.pop(connection.tasks.name)
            assert (tasks.messages, tasks.consumers) == (1, ())
            (states,) = (name for name in found if name.endswith("_states"))
            assert found[states].messages == 1
            for name, limit in (
                (states, {"max_msg_size": 1}),
                (tasks.stream.name, {"max_msgs": 1}),
            ):
                info = await connection.link.js.stream_info(name)
                await connection.link.js.update_stream(info.config.evolve(**limit))
                with pytest.raises(EngineUnavailable):
                    await probe.prove_delivery()
                await connection.link.js.update_stream(info.config)
                await probe.prove_delivery()

    asyncio.run(play())


@pytest.mark.thorough
def test_a_probe_succeeds_after_a_failed_one(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            probe = QueueProbe(connection=connection)
            probes = connection.tasks.lane(PROBE_PRIORITY, "*")
            await connection.tasks.ensure_consumer(
                ConsumerConfig(name="other", filter_subject=probes)
            )
            with pytest.raises(EngineUnavailable):  # the consumer of the probe is refused
                await probe.prove_delivery()
            assert await connection.tasks.count() == 0
            await connection.tasks.delete_consumer("other")

            await probe.prove_delivery()
            await take_all_probes(connection)
            with pytest.raises(EngineUnavailable):
                await probe.prove_delivery()
            await probe.prove_delivery()

    asyncio.run(play())


async def take_all_probes(connection: Connection) -> None:
    """Send the messages of the existing consumer to another subject."""
    stream, elsewhere = connection.tasks.name, f"{connection.streams.namespace}.elsewhere"
    taken: asyncio.Queue[Msg] = asyncio.Queue()
    await connection.link.subscriptions.subscribe(elsewhere, taken.put)
    (consumer,) = await connection.link.js.consumers_info(stream)
    many = json.dumps({"batch": 100, "expires": 60_000_000_000}).encode()
    await connection.tasks.send_pull_request(consumer.name, many, elsewhere)


@pytest.mark.thorough
def test_growing_from_one_server_to_three_loses_no_task(tmp_path: Path, namespace: str) -> None:
    """Follow the documented way, on which the first server's store is deleted."""
    archive = an_archive()

    async def play(servers: Cluster) -> None:
        servers.up(0, alone=True)
        fleet = Fleet(servers=Servers(urls=servers.urls, replicas=3), namespace=namespace)
        one = replace(fleet, servers=Servers(urls=servers.urls[:1]))
        await one.prepare()
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            web = JetStreamTaskQueue(connection=connection)
            restorer = Restorer(queue=web, events=web, lease=LEASE)
            async with in_background(restorer.restore_after_outages()):
                await web.enqueue(archive)
                servers.down(0)
                shutil.rmtree(servers.store(0))
                for number in range(SIZE):
                    servers.up(number)
                await fleet.prepare()
                assert await handed_out(connection) == archive.key_hash
                assert await replicas_of(connection) == {3}
                servers.down(1)
                health = JetStreamFleet(connection=connection)
                while await health.check_queue():  # until each stream has another leader
                    await asyncio.sleep(0.1)

    with Cluster(tmp_path) as servers:
        asyncio.run(play(servers))


def test_a_single_server_leads_its_streams_and_consumers(fleet: Fleet) -> None:
    async def play() -> tuple[set[int], object]:
        async with fleet.connection() as connection:
            await a_consumer(connection).ensure()
            return await replicas_of(connection), await JetStreamFleet(
                connection=connection
            ).check_queue()

    assert asyncio.run(play()) == ({1}, None)


def test_a_consumer_that_acknowledged_queued_messages_is_stale(fleet: Fleet) -> None:
    """As on a former single server, whose store remembers the consumers of that time."""

    async def play(connection: Connection, info: ConsumerInfo) -> list[int | None]:
        def one_that_is_at(delivered: int, acknowledged: int) -> ConsumerInfo:
            return replace(
                info,
                delivered=SequenceInfo(consumer_seq=9, stream_seq=delivered),
                ack_floor=SequenceInfo(consumer_seq=9, stream_seq=acknowledged),
            )

        at = ((2, 0), (2, 1), (3, 0))
        return [await connection.tasks.withheld_message(one_that_is_at(*numbers)) for numbers in at]

    async def prepare() -> list[int | None]:
        async with fleet.connection() as connection, fleet.queue() as queue:
            for _ in range(2):
                await queue.enqueue(an_archive())
            async with asyncio.timeout(HUNG_AFTER_S):
                while not await taken(connection):
                    pass
            name = consumer_name("hgmo", Priority.HIGH)
            info = await connection.tasks.consumer(name)
            assert info
            assert await connection.tasks.withheld_message(info) is None
            return await play(connection, info)

    assert asyncio.run(prepare()) == [None, 1, 0]


@pytest.mark.thorough
@pytest.mark.parametrize("renewed", (False, True), ids=("here", "elsewhere"))
def test_a_stale_consumer_is_recreated_by_one_worker_only(fleet: Fleet, *, renewed: bool) -> None:
    async def play(connection: Connection) -> int | None:
        await make_stale(connection)
        async with asyncio.timeout(HUNG_AFTER_S), asyncio.TaskGroup() as group:
            making = group.create_task(a_consumer(connection).ensure())
            if renewed:
                await until_seen(connection)
                await connection.tasks.delete_consumer(consumer_name("hgmo", Priority.HIGH))
                while not await taken(connection):
                    pass
            await making
        info = await connection.tasks.consumer(consumer_name("hgmo", Priority.HIGH))
        return info.num_ack_pending if info else None

    async def connected() -> int | None:
        async with fleet.connection() as connection:
            return await play(connection)

    with capture_logs() as lines:
        held = asyncio.run(connected())
    events = [line["event"] for line in lines]
    assert (held, "lane.renewed" in events) == ((1, False) if renewed else (0, True))


async def make_stale(connection: Connection) -> None:
    """Queue a task, and make its consumer stale, as if the task were acknowledged.

    It had another filter, and acknowledged what came after the task.
    """
    queue, name = JetStreamTaskQueue(connection=connection), consumer_name("hgmo", Priority.HIGH)
    for source in ("hgmo", "other"):
        await queue.enqueue(an_archive(source))
    others = connection.tasks.lane(Priority.HIGH, "other")
    await connection.tasks.ensure_consumer(ConsumerConfig(durable_name=name, filter_subject=others))
    pulling = await connection.link.js.pull_subscribe_bind(name, connection.tasks.name)
    await (await pulling.fetch(1, 60))[0].ack_sync()
    await pulling.unsubscribe()


async def until_seen(connection: Connection) -> None:
    """Return once the consumer has its own filter: it was checked by then."""
    own = connection.tasks.lane(Priority.HIGH, "hgmo")
    name = consumer_name("hgmo", Priority.HIGH)
    while True:
        info = await connection.tasks.consumer(name)
        if info and info.config.filter_subject == own:
            return
        await asyncio.sleep(0.01)


async def taken(connection: Connection) -> Msg | None:
    """Return the next message of a worker's consumer, or None after a second."""
    queue = a_consumer(connection)
    await queue.ensure()
    pulling = await connection.link.js.pull_subscribe_bind(queue.name, connection.tasks.name)
    try:
        return (await pulling.fetch(1, 1))[0]
    except nats.errors.TimeoutError:
        return None
    finally:
        await pulling.unsubscribe()


async def handed_out(connection: Connection) -> str:
    """Return the key hash of the next task, and remove it from the queue."""
    while True:
        with suppress(EngineUnavailable, nats.errors.Error):
            if message := await taken(connection):
                await message.ack_sync()
                return message.subject.rpartition(".")[2]
