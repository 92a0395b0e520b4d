"""A cluster of three real NATS servers."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.parts.nats import RESERVES, nats_binary
from tests.parts.process import accepts, free_port, running

SIZE = 3


@dataclass(slots=True)
class Cluster:
    """Servers that can start and stop separately. Each has its own store in *folder*."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(SIZE)])
    _routes: list[int] = field(default_factory=lambda: [free_port() for _ in range(SIZE)])
    _running: dict[int, contextlib.ExitStack] = field(default_factory=dict)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self.ports]

    def store(self, number: int) -> Path:
        return self.folder / f"store{number}"

    def up(self, number: int, *, alone: bool = False) -> None:
        """Start a server as a member of the cluster, or *alone* as a single server."""
        config = self.folder / f"{number}.conf"
        config.write_text(self._config(number) + ("" if alone else self._cluster(number)))
        port, log = self.ports[number], self.folder / f"{number}.log"
        start = [str(nats_binary()), "--config", str(config)]
        stack = self._running[number] = contextlib.ExitStack()
        self.processes[number] = stack.enter_context(
            running(start, log=log, ready=lambda: accepts(port))
        )

    def _config(self, number: int) -> str:
        return (
            f"server_name: server{number}\n"
            f"listen: 127.0.0.1:{self.ports[number]}\n"
            f'jetstream {{ store_dir: "{self.store(number)}", {RESERVES} }}\n'
        )

    def _cluster(self, number: int) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        listen = f"127.0.0.1:{self._routes[number]}"
        return f"cluster {{ name: test, listen: {listen}, routes: [{routes}] }}\n"

    def down(self, number: int) -> None:
        self._running.pop(number).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in tuple(self._running):
            self.down(number)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster whose servers accept connections. It may not have a leader yet."""
    with Cluster(folder) as three:
        for number in range(SIZE):
            three.up(number)
        yield three
