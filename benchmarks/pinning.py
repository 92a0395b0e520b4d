"""On which cores a process runs: those of whoever starts it, at the moment it does."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

CORES = sorted(os.sched_getaffinity(0))

SERVER = {CORES[0]}
OTHERS = {CORES[-1]}
"""The load generator's core, and everything else's. On a machine of one core, both are the same."""

EVERY = set(CORES)

ONE_PROCESS = {"ARCHIVER_SERVER__PROCESSES": "1"}
ONE_PER_CORE = {"ARCHIVER_SERVER__PROCESSES": str(len(CORES))}
"""Settings: as many web processes as one core takes, and as there are without a setting."""


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Keep to *cores* all processes that are started in this block, for as long as they live."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
