"""Work that runs in threads while the event loop, or the submitting thread, continues."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Callable,
    Iterator,
)
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

from archiver.runtime.tasks import uninterrupted

V = TypeVar("V")


P = ParamSpec("P")


async def run_in_thread(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    """Return what *work* returns in a thread. When cancelled, wait until the thread is through.

    ``asyncio.to_thread`` would leave it at work on what its caller is about to close.
    """
    call = partial(copy_context().run, _called, work, *args, **kwargs)
    return await uninterrupted(asyncio.get_running_loop().run_in_executor(None, call))


def _called(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    try:
        return work(*args, **kwargs)
    except StopIteration as exc:  # no future takes it: whoever awaits it would do so for ever
        raise RuntimeError("what ran in a thread raised StopIteration") from exc


async def iterate_in_thread(items: Iterator[V]) -> AsyncGenerator[V, None]:
    """Yield *items*, each made in a thread."""
    while (item := await run_in_thread(next, items, None)) is not None:
        yield item


class OrderedWork:
    """Work that is done in its order while who gives it, in a thread, goes on.

    A pool does it; but who is *depth* pieces ahead, or waits for the end, does what the pool has
    not begun. So nobody waits for a thread to become free. Without a pool, all is done at once.
    """

    def __init__(self, *, pool: Executor | None, depth: int) -> None:
        self._pool = pool
        self._depth = depth
        self._waiting: deque[Callable[[], None]] = deque()
        self._turn = Lock()
        self._failure: Exception | None = None

    def give(self, work: Callable[[], None]) -> None:
        """Have *work* done, unless some that was given before has failed: that is raised."""
        if len(self._waiting) >= self._depth:
            self._do_next()
        self._check()
        if self._pool:
            self._waiting.append(work)
            self._pool.submit(self._do_next)
        else:
            self._do(work)

    def settle(self) -> None:
        """Return when all is done; raise what some of it failed with."""
        while self._waiting:
            self._do_next()
        with self._turn:  # somebody may be at the last of it
            self._check()

    def _do_next(self) -> None:
        with self._turn:
            if self._waiting:
                self._do(self._waiting.popleft())

    def _do(self, work: Callable[[], None]) -> None:
        if self._failure:  # it came after the last look at it, when this was given
            return
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - it is raised where the work is given
            self._failure = exc
            self._waiting.clear()

    def _check(self) -> None:
        if self._failure:
            raise self._failure
