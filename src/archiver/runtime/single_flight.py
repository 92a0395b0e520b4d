"""Shares one run per key among concurrent callers."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from archiver.runtime.tasks import mark_retrieved

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs one awaitable per key at a time. Concurrent callers share its outcome.

    Cancelling a caller does not cancel the run.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Future[V]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._running

    async def join_or_start(self, key: K, start: Callable[[], Awaitable[V]]) -> V:
        running = self._running.get(key)
        if running is None:
            running = asyncio.ensure_future(start())
            self._running[key] = running
            running.add_done_callback(lambda done: self._remove(key, done))
        return await asyncio.shield(running)

    def _remove(self, key: K, done: asyncio.Future[V]) -> None:
        self._running.pop(key, None)
        mark_retrieved(done)  # in case every caller was cancelled
