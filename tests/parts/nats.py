"""A real NATS server that tests share. Each test uses its own namespace."""

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

RESERVES = "max_file_store: 100TB, max_memory_store: 1TB"
"""Room for the limits of any number of fleets, which the server reserves."""


def nats_binary() -> Path:
    beside = Path(sys.executable).parent / "nats-server"
    return beside if beside.exists() else Path(shutil.which("nats-server") or "nats-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nats:
    """A running server. ``url`` is its address."""

    url: str
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """Stop the process with SIGSTOP, and wait until it has stopped responding."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


async def settled(client: Client) -> None:
    """Wait until the server has received all messages that *client* published.

    In nats-py, the PING of ``flush`` overtakes pending messages, which are sent before its PONG
    arrives. Only the PING of the second ``flush`` follows all of them.
    """
    await client.flush()
    await client.flush()


def command(folder: Path, port: int) -> list[str]:
    """Return the command of a server that syncs each write to disk before it acknowledges it."""
    config = folder / "nats.conf"
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always, {RESERVES} }}\n'
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
    """A namespace that no other test uses."""
    return f"test{secrets.token_hex(4)}"
