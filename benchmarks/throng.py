"""Runs many clients in another process, and returns the outcome of each."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.programs import TIMEOUT_S

LEAD_S = 1.0
"""Time for the process of the clients to start, before the first client begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The outcome of one client. Times are of ``time.time()``."""

    outcome: str
    begun_at: float
    ended_at: float

    @property
    def taken_ms(self) -> float:
        return 1000 * (self.ended_at - self.begun_at)


class Throng:
    """Running clients. They end with the block of `throng`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def replies(self) -> list[Reply]:
        """Wait until all clients have finished, and return their outcomes."""
        output, _ = self._process.communicate(timeout=TIMEOUT_S)
        return [
            Reply(outcome=outcome, begun_at=begun_at, ended_at=ended_at)
            for outcome, begun_at, ended_at in json.loads(output)
        ]


@contextmanager
def throng(url: str, count: int, *, over_s: float) -> Iterator[Throng]:
    """Yield *count* clients of ``benchmarks.crowd``, which start within *over_s* seconds."""
    words = [url, str(count), str(over_s), str(time.time() + LEAD_S)]
    command = [sys.executable, "-m", "benchmarks.crowd", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Throng(process)
        finally:
            process.kill()


def crowd(url: str, count: int, *, over_s: float) -> list[Reply]:
    """Run such clients, and return their outcomes."""
    with throng(url, count, over_s=over_s) as clients:
        return clients.replies()


def p99(samples: Sequence[float]) -> float:
    return quantiles(samples, n=100)[-1]
