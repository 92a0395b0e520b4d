"""The link to NATS, when a server or nats-py itself fails."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.jetstream.link import Link, Servers
from archiver.runtime.tasks import cancel_and_wait
from tests.parts.nats import command
from tests.parts.process import accepts, free_port, running


class Wire:
    """A link to a server that does not run yet."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.gaps = 0
        self._folder = folder
        self.link = Link(
            servers=Servers(urls=[f"nats://127.0.0.1:{self.port}"]),
            name="test",
            renew_after=timedelta(seconds=2),
        )
        self.link.gaps.add(self._count)

    def _count(self) -> None:
        self.gaps += 1

    def server(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        start = command(self._folder, self.port)
        return running(start, log=self._folder / "log", ready=lambda: accepts(self.port))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Link]:
        keeping = asyncio.create_task(self.link.keep_connected())
        yield self.link
        await cancel_and_wait(keeping)

    async def up(self) -> Client:
        async with asyncio.timeout(10):
            await self.link.wait()
            return self.link.client

    async def down(self) -> None:
        """Return once the client has noticed the loss of its server."""
        async with asyncio.timeout(10):
            while True:
                try:
                    _ = self.link.client
                except EngineUnavailable:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    return Wire(tmp_path)


def test_a_client_exists_only_with_a_server(wire: Wire) -> None:
    async def play() -> None:
        async with wire.kept() as link:
            await link.wait(timedelta(seconds=0.2))
            with pytest.raises(EngineUnavailable):
                _ = link.client
            with wire.server():
                await (await wire.up()).flush()

    asyncio.run(play())


def test_a_restarted_server_keeps_its_client_and_a_gap_is_reported(
    wire: Wire,
) -> None:
    async def play() -> tuple[bool, int]:
        async with wire.kept():
            with wire.server():
                before = await wire.up()
            await wire.down()
            with wire.server():
                return await wire.up() is before, wire.gaps

    assert asyncio.run(play()) == (True, 2)


def test_a_client_that_never_reconnects_is_replaced(wire: Wire) -> None:
    async def play() -> tuple[bool, int]:
        with capture_logs() as lines:
            return await replace(), sum(line["event"] == "engine.connected" for line in lines)

    async def replace() -> bool:
        async with wire.kept():
            with wire.server():
                before = await wire.up()
            await wire.down()
            reconnecting = before._reconnection_task  # noqa: SLF001
            assert reconnecting
            reconnecting.cancel()  # as if nats-py's task had died of an error
            with wire.server():
                return await wire.up() is before

    assert asyncio.run(play()) == (False, 2)


def test_errors_before_a_disconnection_do_not_hide_its_reason(wire: Wire) -> None:
    async def play() -> list[str]:
        with capture_logs() as lines:
            async with wire.kept() as link, asyncio.timeout(30):
                with wire.server():
                    await wire.up()
                    link.faults.report("engine.not_ready", ConnectionRefusedError())
                while not any(line["event"] == "engine.unreachable" for line in lines):
                    await asyncio.sleep(0.02)
        return [line["reason"] for line in lines if "reason" in line]

    assert asyncio.run(play()) == ["refused"] * 2
