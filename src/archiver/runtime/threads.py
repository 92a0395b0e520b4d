"""Work in threads, while the event loop or the submitting thread continues."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

from archiver.runtime.tasks import complete_despite_cancellation

V = TypeVar("V")
P = ParamSpec("P")


async def run_in_thread(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    """Return the result of *work* in a thread. A cancelled caller waits until the thread is done.

    ``asyncio.to_thread`` would let the thread continue with objects that the caller closes.
    """
    call = partial(copy_context().run, _call, work, *args, **kwargs)
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await complete_despite_cancellation(running)
    finally:
        del running  # it would be in the traceback of an exception that it holds


def _call(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    try:
        return work(*args, **kwargs)
    except StopIteration as exc:  # a future cannot hold it: its awaiter would wait forever
        raise RuntimeError("a function that ran in a thread raised StopIteration") from exc


async def iterate_in_thread(items: Iterator[V]) -> AsyncGenerator[V, None]:
    """Yield *items*, each produced in a thread."""
    while (item := await run_in_thread(next, items, None)) is not None:
        yield item


class OrderedWork:
    """Runs queued work in order in a pool while the submitting thread continues.

    The submitting thread runs work itself if the queue has *depth* entries, or while it waits for
    the end. It therefore never waits for a free thread of the pool. Without a pool, ``submit``
    runs the work at once.
    """

    def __init__(self, *, pool: Executor | None, depth: int) -> None:
        self._pool = pool
        self._depth = depth
        self._waiting: deque[Callable[[], None]] = deque()
        self._turn = Lock()
        self._failure: Exception | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Queue *work*, or raise the error of earlier work."""
        if len(self._waiting) >= self._depth:
            self._run_next()
        self._raise_failure()
        if self._pool:
            self._waiting.append(work)
            self._pool.submit(self._run_next)
        else:
            self._run(work)

    def join(self) -> None:
        """Return when all work is done. Raise the error of any."""
        while self._waiting:
            self._run_next()
        with self._turn:  # a thread of the pool may still run the last entry
            self._raise_failure()

    def _run_next(self) -> None:
        with self._turn:
            if self._waiting:
                self._run(self._waiting.popleft())

    def _run(self, work: Callable[[], None]) -> None:
        if self._failure:  # it occurred after the check in ``submit``
            return
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - raised by ``submit`` or ``join``
            self._failure = exc
            self._waiting.clear()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
