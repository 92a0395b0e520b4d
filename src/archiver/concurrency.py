"""Tasks of asyncio: many callers that share a run, and an end that is one."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Coalesce(Generic[K, V]):
    """Runs one awaitable per key at a time and gives its outcome to everyone who asks meanwhile.

    A caller that is cancelled leaves the run to the others.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Future[V]] = {}

    async def run(self, key: K, start: Callable[[], Awaitable[V]]) -> V:
        running = self._running.get(key)
        if running is None:
            running = asyncio.ensure_future(start())
            self._running[key] = running
            running.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(running)

    def _ended(self, key: K, done: asyncio.Future[V]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # if every caller was cancelled, nobody else would fetch it


async def end(*tasks: asyncio.Task[None], insist_after: timedelta = timedelta(seconds=1)) -> None:
    """Cancel *tasks* and return when they have ended; cancel again those that take no notice.

    Before Python 3.12, ``asyncio.wait_for`` swallows a cancellation that comes together with its
    result (https://github.com/python/cpython/issues/81839), and nats-py waits in no other way.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=insist_after.total_seconds())
