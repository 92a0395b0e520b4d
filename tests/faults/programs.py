"""The processes of the fleet: each can be killed, frozen, stopped and started again."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.process import descendants, stop, wait_until

START_S = 120.0
STOP_S = 20.0


@dataclass(slots=True)
class Spell:
    """A time during which a process did not run. A killed one has no end."""

    pid: int
    began: float
    ended: float = float("inf")


class Spells:
    """When which processes were frozen or dead, which excuses what they left unfinished."""

    def __init__(self) -> None:
        self._spells: list[Spell] = []

    def begin(self, pid: int) -> Spell:
        spell = Spell(pid, time.monotonic())
        self._spells.append(spell)
        return spell

    def of(self, pid: int, began: float, ended: float) -> list[Spell]:
        """Return the spells of a process that overlap with this time."""
        return [
            each
            for each in self._spells
            if each.pid == pid and each.began < ended and each.ended > began
        ]

    def are_on(self, pid: int, now: float, *, margin_s: float = 0.0) -> bool:
        """Return whether the process is in a spell, or was within the last *margin_s*."""
        return bool(self.of(pid, now - margin_s, now))


@dataclass(slots=True)
class Program:
    """One program, which may run many times. ``whole`` means that signals reach its children.

    A SIGTERM is followed by a SIGKILL after ``patience_s``.
    """

    name: str
    command: list[str]
    log: Path
    ready: Callable[[], bool]
    spells: Spells
    env: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    patience_s: float = STOP_S
    process: subprocess.Popen[bytes] | None = None
    _log_start: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        """The process ID, also of a process that has ended; 0 before the first start."""
        return self.process.pid if self.process else 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pids(self) -> list[int]:
        """The process, and its children if they share its fate."""
        if not self.is_running:
            return []
        return [self.pid, *descendants(self.pid)] if self.whole else [self.pid]

    def has_logged(self, words: bytes) -> bool:
        """Return whether the log has *words* since the latest start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return words in file.read()

    def launch(self, env: Mapping[str, str] | None = None) -> None:
        """Start the program, if it does not run. It may not be ready yet."""
        with self._lock:
            if self.is_running:
                return
            with self.log.open("ab") as output:
                self._log_start = output.tell()
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.env, **(env or {})},
                )

    def up(self) -> None:
        """Start the program if it does not run, and wait until it is ready."""
        deadline = time.monotonic() + START_S
        while True:
            self.launch()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.is_running or self.ready(), timeout_s=START_S)
            if self.is_running and self.ready():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not start; see {self.log}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End the process at once, as the kernel does if memory is short."""
        for pid in self.pids:
            self.spells.begin(pid)
            send(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()

    def terminate(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        if self.process and self.is_running:
            children = descendants(self.pid) if self.whole else {}
            self.spells.begin(self.pid)
            stop(self.process, timeout_s=self.patience_s)
            for pid in children:
                send(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the process during the block."""
        frozen = [(pid, self.spells.begin(pid)) for pid in self.pids]
        for pid, _ in frozen:
            send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid, spell in frozen:
                send(pid, signal.SIGCONT)
                spell.ended = time.monotonic()


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal, and return whether the process still exists."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def resident_mb(pid: int) -> float:
    """Return the memory that a process occupies, in MB; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
    return 0.0


def owner(port: int, pids: list[int]) -> int:
    """Return which of the processes has a connection from this local *port*; 0 if none has."""
    inode = _inode(port)
    for pid in pids if inode else ():
        with contextlib.suppress(OSError):
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if each.readlink().name == f"socket:[{inode}]":
                        return pid
    return 0


def _inode(port: int) -> str:
    wanted = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(wanted):
            return words[9]
    return ""
