"""What a worker answers over HTTP."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from archiver.connection_cap import CONNECTIONS_MAX, accept_errors_logged_rarely
from archiver.health import Health, Heartbeat
from archiver.worker_listener import CannotListen, listening
from tests.memory_world import World
from tests.parts.process import free_port
from tests.system.client import Answer, fetch

VERSION = {"version": "1.2.3"}


def asked(
    world: World, *paths: str, check: Callable[[], Awaitable[Health]] | None = None
) -> list[Answer]:
    """Return what a worker of *world* answers to each of *paths*."""
    port = free_port()

    async def play() -> list[Answer]:
        heartbeat = Heartbeat(check=check or world.archiver.check_worker_health)
        async with listening([f"127.0.0.1:{port}"], heartbeat=heartbeat, version=VERSION):
            ask: Callable[[str], Answer] = lambda path: fetch(f"http://127.0.0.1:{port}{path}")  # noqa: E731
            return [await asyncio.to_thread(ask, path) for path in paths]

    return asyncio.run(play())


def test_a_worker_answers_dockerflow_and_prometheus() -> None:
    beat, alive, version, metrics, other = asked(
        World(), "/__heartbeat__", "/__lbheartbeat__", "/__version__", "/metrics", "/archiver/a"
    )
    assert (beat.status, beat.json["status"]) == (200, "ok")
    assert alive.status == 200
    assert version.json == VERSION
    assert b"archiver_attempts_total" in metrics.body
    assert other.status == 404


def test_a_worker_that_cannot_write_anywhere_is_not_well() -> None:
    world = World()
    world.storage.full.update(world.storage.regions)
    (beat,) = asked(world, "/__heartbeat__")
    assert (beat.status, beat.json["checks"]["region.us-east-1"]) == (500, "error")
    assert beat.json["details"]["region.us-east-1"]["messages"] == {
        "storage_unavailable": "us-east-1 rejects writes (QuotaExceeded)"
    }


def test_a_worker_without_an_engine_is_not_well() -> None:
    world = World()
    world.engine.down = True
    (beat,) = asked(world, "/__heartbeat__")
    assert (beat.status, beat.json["checks"]["engine"]) == (500, "error")


def test_a_fault_of_a_handler_is_logged() -> None:
    async def check() -> Health:
        raise ZeroDivisionError

    with capture_logs() as lines:
        (beat,) = asked(World(), "/__heartbeat__", check=check)
    assert beat.status == 500
    (line,) = lines
    assert (line["event"], line["route"], line["exc_info"]) == (
        "request.crashed",
        "/__heartbeat__",
        True,
    )


async def listen(address: str) -> None:
    heartbeat = Heartbeat(check=World().archiver.check_worker_health)
    async with listening([address], heartbeat=heartbeat, version=VERSION):
        pass


def test_an_address_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = f"127.0.0.1:{squatter.getsockname()[1]}"
        with pytest.raises(CannotListen, match="Address already in use"):
            asyncio.run(listen(taken))


def test_the_first_free_address_is_taken() -> None:
    async def play(*addresses: str, required: bool = True) -> str:
        heartbeat = Heartbeat(check=World().archiver.check_worker_health)
        listener = listening(addresses, heartbeat=heartbeat, version=VERSION, required=required)
        async with listener as address:
            return address

    free = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = f"127.0.0.1:{squatter.getsockname()[1]}"
        assert asyncio.run(play(taken, free)) == free
        assert asyncio.run(play(taken, required=False)) == ""


@pytest.mark.parametrize("host", ("127.0.0.1%1", "a b", "a..b"))
def test_an_address_that_has_no_host_is_refused(host: str) -> None:
    """The resolver refuses these names by itself, without asking a server."""
    with pytest.raises(CannotListen, match=r"^no such host$"):
        asyncio.run(listen(f"{host}:0"))


def test_connections_beyond_the_limit_are_closed_and_the_others_answered() -> None:
    port = free_port()

    async def play() -> int:
        heartbeat = Heartbeat(check=World().archiver.check_worker_health)
        async with listening([f"127.0.0.1:{port}"], heartbeat=heartbeat, version=VERSION):
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(70)]
            ends = [asyncio.ensure_future(reader.read()) for reader, _ in opened]
            done: set[asyncio.Future[bytes]] = set()
            waiting = set(ends)
            while len(done) < len(opened) - CONNECTIONS_MAX:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= ended
            _, writer = next(pair for pair, end in zip(opened, ends, strict=True) if not end.done())
            writer.write(b"GET /__lbheartbeat__ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answered, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert answered.pop().result().startswith(b"HTTP/1.1 200 OK")
            for _, writer in opened:
                writer.close()
            await asyncio.wait(ends)
            again = await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/__lbheartbeat__")
            assert again.status == 200
            return len(done)

    assert asyncio.run(play()) == 70 - CONNECTIONS_MAX


@pytest.mark.thorough
@pytest.mark.parametrize("part", (b"", b"GET /metrics HTTP/1.1\r\nX: "))
def test_a_connection_without_a_whole_request_is_closed(part: bytes) -> None:
    port = free_port()

    async def play() -> bytes:
        heartbeat = Heartbeat(check=World().archiver.check_worker_health)
        async with listening([f"127.0.0.1:{port}"], heartbeat=heartbeat, version=VERSION):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(part)
            rest = await reader.read()
            writer.close()
            return rest

    assert asyncio.run(play()) == b""


def test_a_lack_of_descriptors_is_logged_once() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        with accept_errors_logged_rarely():
            for _ in range(3):
                logger.error("socket.accept() out of system resource\nsocket: x")
                logger.error("something else")
    finally:
        logger.removeHandler(handler)
    assert [line.split()[0] for line in lines].count("socket.accept()") == 1
    assert lines.count("something else") == 3
