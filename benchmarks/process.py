"""What a process has used so far, by Linux's word (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.system.stack import Process

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """``cpu_s`` is user and system time of all threads, ``peak_mb`` the most memory ever held."""

    cpu_s: float
    peak_mb: float


def usage(process: Process) -> Usage:
    """Return what *process* has used since it began."""
    folder = Path("/proc") / str(process.pid)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    status = dict(line.split(":\t") for line in (folder / "status").read_text().splitlines())
    peak_kb = int(status["VmHWM"].removesuffix("kB"))
    return Usage(cpu_s=(int(user) + int(system)) / _TICKS_PER_S, peak_mb=peak_kb / 1000)
