"""CPU time and memory of a process, from Linux's proc(5)."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.stack import Process

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")

SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """``cpu_s`` is user and system time of all threads; ``peak_mb`` is peak resident memory."""

    cpu_s: float
    peak_mb: float


def usage(process: Process) -> Usage:
    """Return the usage of *process* since its start."""
    fields = (_PROC / str(process.pid) / "stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return Usage(cpu_s=(int(user) + int(system)) / _TICKS_PER_S, peak_mb=_mb(process.pid, "VmHWM"))


def resident_mb(process: Process) -> float:
    """Return the sum of the resident memory of *process* and its descendants."""
    return sum(_mb(pid, "VmRSS") for pid in _family(process.pid))


@dataclass(slots=True, kw_only=True)
class Peaks:
    """Peak resident memory, in MB: of a process and its descendants together, and of each program.

    The sum counts memory that processes share once for each of them.
    """

    together_mb: float = 0
    by_program: dict[str, float] = field(default_factory=dict)

    def sample(self, pid: int) -> None:
        together_mb = 0.0
        for relative in _family(pid):
            with suppress(OSError, KeyError):  # it has just ended
                name, own_mb = _program(relative), _mb(relative, "VmHWM")
                together_mb += _mb(relative, "VmRSS")
                self.by_program[name] = max(own_mb, self.by_program.get(name, 0))
        self.together_mb = max(together_mb, self.together_mb)


@contextmanager
def sampling(process: Process) -> Iterator[Peaks]:
    """Yield the peaks of *process* and its descendants, sampled every SAMPLE_S in the block."""
    peaks, ended = Peaks(), threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            peaks.sample(process.pid)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _program(pid: int) -> str:
    """Return the name of a process: git with its command, or Python with its module."""
    words = (_PROC / str(pid) / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
    if not words[0]:
        raise ProcessLookupError(f"{pid} has ended")
    name = Path(words[0]).name
    if name == "git":
        return " ".join([name, *[word for word in words[1:] if not word.startswith("-")][:1]])
    return words[words.index("-m") + 1] if "-m" in words else name


def _family(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # a process or a thread has just ended
        for started in (_PROC / str(pid) / "task").glob("*/children"):
            children += map(int, started.read_text().split())
    return [pid, *(relative for child in children for relative in _family(child))]


def _mb(pid: int, field: str) -> float:
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    return int(dict(line.split(":\t") for line in lines)[field].removesuffix("kB")) / 1000
