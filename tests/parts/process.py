"""Starts real servers for tests, waits until they are ready, and stops each by its process ID."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 5.0

PORTS = range(12_000, 22_000)
"""Below the ephemeral ports of outgoing connections (``ip_local_port_range``). SeaweedFS also
listens on each of its ports plus 10,000, which is in neither range."""

_PORTS_PER_PROCESS = 499
"""Offset between test processes. A suite needs a few hundred ports in each."""

_offsets = itertools.count(os.getpid() * _PORTS_PER_PROCESS)


def free_port() -> int:
    """Return a free loopback port that no concurrent test gets at the same time."""
    while True:
        port = PORTS[next(_offsets) % len(PORTS)]
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_until(
    happened: Callable[[], bool], *, timeout_s: float = START_TIMEOUT_S, what: str = "it"
) -> None:
    """Wait until *happened* returns true. Fail the test after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start *command*, wait until it is *ready*, and stop it after the block.

    Its output is appended to *log*.
    """
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        ) as process,
    ):
        try:
            wait_until(
                lambda: process.poll() is not None or ready(), what=f"the start of {command[0]}"
            )
            if process.returncode is not None:
                raise AssertionError(f"{command[0]} ended: {log.read_text(errors='replace')}")
            yield process
        finally:
            stop(process, timeout_s=stop_timeout_s)


def stop(process: subprocess.Popen[bytes], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Send SIGTERM to *process*, and SIGKILL after *timeout_s*."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Return the IDs and command lines of all descendants of *pid*."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            child = int(folder.name)
            parents[child] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[child] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: commands[child] for child in found - {pid}}
