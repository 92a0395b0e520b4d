"""CPU time and memory of a process, from Linux's proc(5)."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.system.stack import Process

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


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


def _family(pid: int) -> list[int]:
    started = (_PROC / str(pid) / "task").glob("*/children")
    children = [int(child) for each in started for child in each.read_text().split()]
    return [pid, *(relative for child in children for relative in _family(child))]


def _mb(pid: int, field: str) -> float:
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    return int(dict(line.split(":\t") for line in lines)[field].removesuffix("kB")) / 1000
