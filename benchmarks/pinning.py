"""Pins processes to cores: a process inherits the cores of the one that starts it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

CORES = sorted(os.sched_getaffinity(0))

SERVER = {CORES[0]}
OTHERS = {CORES[-1]}
"""The cores of the load generator and of everything else. One core serves both, if need be."""

EVERY = set(CORES)

ONE_PROCESS = {"ARCHIVER_SERVER__PROCESSES": "1"}
ONE_PER_CORE = {"ARCHIVER_SERVER__PROCESSES": str(len(CORES))}
"""Settings for one web process, and for the default of one per core."""


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Pin all processes that the block starts to *cores*, for their lifetime."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
