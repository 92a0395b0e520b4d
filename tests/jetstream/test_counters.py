"""Counts of the fleet on real servers: of several processes, and while the server is away."""

import asyncio
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from archiver.errors import EngineUnavailable, TooManyNewTasks
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.counters import JetStreamCounters
from archiver.jetstream.link import Servers
from archiver.limiter import ClientLimits, Limiter
from archiver.ports.queue import Standing
from tests.parts.fleet import HUNG_AFTER_S, Fleet
from tests.parts.nats import Nats, command
from tests.parts.process import accepts, free_port, running

IDLE = Standing(open_tasks=0, waiting=0)
LIMIT = 6


def a_limiter(connection: Connection) -> Limiter:
    return Limiter(
        limits=ClientLimits(tasks_per_minute=LIMIT),
        counters=JetStreamCounters(connection=connection),
        now=lambda: 0.0,
    )


async def admitted(limiter: Limiter, tries: int) -> int:
    """Return how many of so many new tasks of a client are admitted."""
    count = 0
    for _ in range(tries):
        try:
            await limiter.count_task("a", IDLE)
        except TooManyNewTasks:
            continue
        count += 1
    return count


def test_a_limit_holds_over_two_processes(fleet: Fleet) -> None:
    async def play() -> int:
        async with fleet.connection() as one, fleet.connection() as two:
            counts = await asyncio.gather(
                *(admitted(a_limiter(each), LIMIT) for each in (one, two))
            )
            return sum(counts)

    assert asyncio.run(play()) == LIMIT


def test_without_an_engine_a_process_admits_its_own_limit(namespace: str) -> None:
    async def play() -> int:
        servers = Servers(urls=["nats://127.0.0.1:1"])
        async with connect(servers, namespace=namespace, name="test") as connection:
            return await admitted(a_limiter(connection), LIMIT + 2)

    assert asyncio.run(play()) == LIMIT


def test_a_silent_engine_delays_a_request_by_the_patience_only(fleet: Fleet, nats: Nats) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            counters = JetStreamCounters(connection=connection)
            await counters.count("tasks", "a", minute=1)
            nats.freeze()
            try:
                async with asyncio.timeout(2):
                    with pytest.raises(EngineUnavailable):
                        await counters.count("tasks", "a", minute=1)
            finally:
                nats.thaw()

    asyncio.run(play())


def test_a_server_that_cannot_count_is_not_asked_again(fleet: Fleet) -> None:
    """An older one creates an ordinary stream, and ignores the header."""

    async def play() -> list[str]:
        async with fleet.connection() as connection:
            counters = JetStreamCounters(connection=connection)
            subject = f"{fleet.namespace}.counts.*.*.*"
            js = connection.link.js
            await js.add_stream(StreamConfig(name=counters.stream, subjects=[subject]))
            for _ in range(2):
                with pytest.raises(EngineUnavailable):
                    await counters.count("tasks", "a", minute=1)
            return [str(stream.config.name) for stream in await js.streams_info()]

    assert f"{fleet.namespace}_counts" not in asyncio.run(play())


class Restarted:
    """A server that a test stops and starts again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder

    def up(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        start = command(self._folder, self.port)
        return running(start, log=self._folder / "log", ready=lambda: accepts(self.port))


def test_a_limit_holds_while_the_server_is_restarted(tmp_path: Path, namespace: str) -> None:
    server = Restarted(tmp_path)
    servers = Servers(urls=[f"nats://127.0.0.1:{server.port}"])

    async def play() -> tuple[int, int]:
        with server.up():
            opening = connect(servers, namespace=namespace, name="test")
            connection = await opening.__aenter__()
            limiter = a_limiter(connection)
            before = await admitted(limiter, LIMIT - 2)
        during = await admitted(limiter, 1)
        with server.up():
            async with asyncio.timeout(HUNG_AFTER_S):
                await connection.link.wait()
            after = await admitted(limiter, LIMIT)
            other = await admitted(a_limiter(connection), 1)
            await opening.__aexit__(None, None, None)
        return before + during + after, other

    assert asyncio.run(play()) == (LIMIT, 1)
