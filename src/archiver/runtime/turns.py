"""Lets callers with the same key take turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Runs one block per key at a time, in the order of arrival. Only keys in use are held."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        lock = self._change(key, 1)
        try:
            async with lock:
                yield
        finally:
            self._change(key, -1)

    def _change(self, key: str, change: int) -> asyncio.Lock:
        lock, users = self._locks.pop(key, (asyncio.Lock(), 0))
        if users + change:
            self._locks[key] = lock, users + change
        return lock
