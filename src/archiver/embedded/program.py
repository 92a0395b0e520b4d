"""A program to run: its command, where it is installed, and how to see that it works."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROBE_TIMEOUT_S = 2.0

SUPERVISED = "SUPERVISED_BY_ARCHIVER"
"""An environment variable of the processes of `archiver serve`."""

DRAINED = 10
"""The exit code of its workers after an order to drain. They are not started again."""


class CannotServe(Exception):
    """A program cannot run here. The text gives the reason and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The bytes to send to a port, and the text that the first line of the response must have."""

    host: str
    port: int
    send: bytes = b""
    expect: bytes

    async def succeeds(self) -> bool:
        with suppress(OSError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self._try()
        return False

    async def _try(self) -> bool:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.send)
            return self.expect in await reader.readline()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def http_probe(host: str, port: int, path: str, *, expect: bytes) -> Probe:
    """Return a probe that requests *path* and expects *expect* in the status line."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    return Probe(host=host, port=port, send=request.encode(), expect=expect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to keep running.

    - ``prepare`` creates the files it needs, before every start.
    - ``ready`` succeeds when it serves; without one, it serves at once.
    - ``broken`` succeeds when the program cannot work until it is restarted. It is tried at
      most once in ``check_interval_s``.
    - ``folder`` must stay the same directory; if it is replaced, the program is restarted.
    - ``inherits`` are file descriptors that it keeps open.
    - ``rests_after`` is the exit code after which it is not started again.
    - ``log`` receives its output; without one, this process's standard error does.
    - ``sends_traces`` gives it the variables of OpenTelemetry, among which is a password.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    prepare: Callable[[], object] = lambda: None
    ready: Probe | None = None
    broken: Probe | None = None
    check_interval_s: float = 5.0
    folder: Path | None = None
    inherits: tuple[int, ...] = ()
    rests_after: int | None = None
    log: Path | None = None
    grace_s: float = 5.0
    sends_traces: bool = False

    def environment(self) -> dict[str, str]:
        """Return the variables of this process that the program gets, and its own."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if self.sends_traces or not name.startswith("OTEL_")
        }
        return {**inherited, **self.env}


def find_program(name: str) -> Path:
    """Return the path of a program that is installed. Raises CannotServe if it is not."""
    beside = Path(sys.executable).parent / name  # where wheels install it
    if beside.exists():
        return beside
    if found := shutil.which(name):
        return Path(found)
    raise CannotServe(f"{name} is not installed: pip install 'archiver[embedded]'")
