"""Streams at their limits, on real servers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from archiver.errors import EngineFull
from archiver.jetstream.capacity import TASK_MAX_BYTES, Capacity
from archiver.jetstream.connection import Connection
from archiver.jetstream.fullness import Fullness
from archiver.jetstream.link import Servers
from archiver.jetstream.streams import INDEX, USES
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import KEY_MAX_BYTES, Archive, Copies, Region
from archiver.ports.queue import Attempt
from archiver.tasks import TaskState
from archiver.testing import MemoryStorage
from tests.jetstream.indexes import committed, index_of
from tests.parts.fleet import Fleet, an_archive, copies_of, until
from tests.parts.nats import Nats, nats_binary
from tests.parts.process import accepts, free_port, running

TINY = Capacity(archives=10, tasks=1)
"""A queue for some ten tasks, and an index of ten entries."""


def fleet_with(nats: Nats, namespace: str, capacity: Capacity) -> Fleet:
    fleet = Fleet(servers=Servers(urls=[nats.url], capacity=capacity), namespace=namespace)
    asyncio.run(fleet.prepare())
    return fleet


@pytest.fixture
def tiny(nats: Nats, namespace: str) -> Fleet:
    return fleet_with(nats, namespace, TINY)


async def fill_queue(connection: Connection) -> list[Archive]:
    """Enqueue tasks until the queue is full; return their archives."""
    queue, queued = JetStreamTaskQueue(connection=connection), list[Archive]()
    while len(queued) < 100:
        archive = an_archive()
        try:
            await queue.enqueue(archive)
        except EngineFull:
            return queued
        queued.append(archive)
    raise AssertionError("the queue has no limit")


def test_a_full_queue_refuses_tasks_with_one_line_in_the_log(tiny: Fleet) -> None:
    async def play() -> None:
        async with tiny.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            with capture_logs() as lines:
                queued = await fill_queue(connection)
                for _ in range(3):
                    with pytest.raises(EngineFull):
                        await queue.enqueue(an_archive())
            assert queued
            assert await queue.task(queued[0])
            full = [line for line in lines if line["log_level"] == "warning"]
            assert [(line["event"], line["stream"]) for line in full] == [
                ("engine.full", connection.tasks.name)
            ]

    asyncio.run(play())


def test_a_queue_that_was_full_accepts_tasks_again_once_workers_have_taken_some(
    tiny: Fleet,
) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        async with tiny.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            queued = await fill_queue(connection)
            async with tiny.worker(build):
                for archive in queued:
                    await until(queue, archive, TaskState.SUCCESS)
                await queue.enqueue(an_archive())

    asyncio.run(play())


def test_a_full_index_still_finds_and_records_archives(tiny: Fleet) -> None:
    """It drops its oldest entries; these archives are found in the buckets."""

    async def play() -> None:
        storage = MemoryStorage(regions=(Region("one"),))
        archives = [an_archive() for _ in range(3 * TINY.archives)]
        async with tiny.connection() as connection:
            entries = connection.streams.bucket_stream(INDEX)
            with capture_logs() as lines:
                async with index_of(tiny, storage) as index:
                    for archive in archives:
                        await index.record(archive, await committed(storage, archive))
                async with index_of(tiny, storage) as unaware:
                    assert all([await unaware.copies(archive) for archive in archives])
            assert (await connection.link.js.stream_info(entries)).state.messages == TINY.archives
        assert not [line for line in lines if line["log_level"] == "warning"]

    asyncio.run(play())


def test_a_full_stream_is_measured_and_logged_once(tiny: Fleet) -> None:
    async def play() -> None:
        async with tiny.connection() as connection:
            fullness, name = (
                Fullness(connection=connection),
                connection.streams.bucket_stream(INDEX),
            )
            with capture_logs() as lines:
                await fullness.measure()
                assert measured() == 0
                for number in range(2 * TINY.archives):
                    await connection.kv.put(INDEX, str(number), bytes(100))
                for _ in range(2):
                    await fullness.measure()
            assert measured() == 1
            assert lines == [
                {"event": "engine.nearly_full", "stream": name, "log_level": "warning"}
            ]

    asyncio.run(play())


def measured() -> float | None:
    return REGISTRY.get_sample_value("archiver_engine_fullness", {"place": INDEX})


def test_a_smaller_capacity_removes_nothing(nats: Nats, namespace: str) -> None:
    fleet = fleet_with(nats, namespace, Capacity(archives=1000))
    small = replace(fleet, servers=replace(fleet.servers, capacity=TINY))

    async def play() -> None:
        async with fleet.connection() as connection:
            for number in range(4 * TINY.archives):
                await connection.kv.put(INDEX, str(number), b"value")
            tasks = [an_archive() for _ in range(20)]
            for archive in tasks:
                await JetStreamTaskQueue(connection=connection).enqueue(archive)
        with capture_logs() as lines:
            async with small.connection() as connection:
                assert len(await connection.kv.keys(INDEX, ">")) == 4 * TINY.archives
                assert await connection.tasks.count() == len(tasks)
                with pytest.raises(EngineFull):
                    await JetStreamTaskQueue(connection=connection).enqueue(an_archive())
                await connection.kv.put(USES, "key", b"value")
        different = [line for line in lines if line["event"] == "engine.limits_differ"]
        assert [line["streams"] for line in different] == [
            [connection.streams.bucket_stream(INDEX)]
        ]

    asyncio.run(play())


@contextmanager
def small_server(folder: Path, port: int, max_file_store: str) -> Iterator[None]:
    config = folder / "nats.conf"
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f'jetstream {{ store_dir: "{folder / "store"}", max_file_store: {max_file_store} }}\n'
    )
    start = [str(nats_binary()), "--config", str(config)]
    with running(start, log=folder / "log", ready=lambda: accepts(port)):
        yield


@pytest.mark.parametrize("before", (None, "10GB"), ids=("always", "after_a_restart"))
def test_a_server_without_room_for_the_limits_serves_all_the_same(
    tmp_path: Path, namespace: str, before: str | None
) -> None:
    """A server that has less room than its streams reserve refuses every change of them."""
    port = free_port()
    servers = Servers(urls=[f"nats://127.0.0.1:{port}"])
    fleet = Fleet(servers=servers, namespace=namespace)
    larger = replace(fleet, servers=replace(servers, capacity=Capacity(archives=2_000_000)))

    async def play(fleet: Fleet) -> None:
        async with fleet.connection() as connection:
            await connection.kv.put(INDEX, "key", b"value")
            await JetStreamTaskQueue(connection=connection).enqueue(an_archive())

    if before:
        with small_server(tmp_path, port, before), capture_logs() as lines:
            asyncio.run(play(fleet))
        assert "engine.limits_differ" not in [line["event"] for line in lines]
    with small_server(tmp_path, port, "1GB"), capture_logs() as lines:
        asyncio.run(play(larger))
    assert "engine.limits_differ" in [line["event"] for line in lines]


def test_a_server_at_its_limit_is_full(tmp_path: Path, namespace: str) -> None:
    port = free_port()
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{port}"]), namespace=namespace)

    async def play() -> None:
        async with fleet.connection() as connection:
            for number in range(150):
                with suppress(EngineFull):
                    await connection.kv.put(INDEX, str(number), bytes(10_000))
            with pytest.raises(EngineFull):
                await connection.kv.put(INDEX, "other", bytes(10_000))
            with pytest.raises(EngineFull):
                await JetStreamTaskQueue(connection=connection).enqueue(an_archive())
            entry = await connection.kv.get(INDEX, "0")
            assert entry

    with small_server(tmp_path, port, "1MB"):
        asyncio.run(play())


def test_the_longest_task_fits_its_share(tiny: Fleet) -> None:
    async def play() -> int:
        async with tiny.connection() as connection:
            tasks, archive = connection.tasks, an_archive("s" * 100)
            archive = replace(archive, repo="/".join(["r" * 170] * 3))
            assert KEY_MAX_BYTES - 50 < len(archive.key) <= KEY_MAX_BYTES
            await JetStreamTaskQueue(connection=connection).enqueue(archive, client="client")
            return (await connection.link.js.stream_info(tasks.name)).state.bytes

    assert asyncio.run(play()) < TASK_MAX_BYTES
