"""A real NATS server, shared by the tests: each keeps to a namespace of its own."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.parts.process import accepts, free_port, running


def nats_binary() -> Path:
    beside = Path(sys.executable).parent / "nats-server"
    return beside if beside.exists() else Path(shutil.which("nats-server") or "nats-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nats:
    """A server that a test may ask for. ``url`` is where it listens."""

    url: str
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """Return when it has stopped, since until then it may answer yet."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


async def settled(client: Client) -> None:
    """Return when the server has what *client* was asked to send.

    The PING of nats-py's ``flush`` overtakes what is pending, which is sent before its PONG comes:
    so only the second one comes after all of it.
    """
    await client.flush()
    await client.flush()


def command(folder: Path, port: int) -> list[str]:
    """Return how to start a server whose acknowledged writes are on disk."""
    config = folder / "nats.conf"
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}\n'
    )
    return [str(nats_binary()), "--config", str(config)]


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    folder = tmp_path_factory.mktemp("nats")
    port = free_port()
    start = command(folder, port)
    with running(start, log=folder / "log", ready=lambda: accepts(port)) as process:
        yield Nats(url=f"nats://127.0.0.1:{port}", process=process)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test has."""
    return f"test{secrets.token_hex(4)}"
