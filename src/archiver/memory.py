"""What a process remembers for a while: bounded in number and in time."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MEMORY_MAX = 100_000


class Memory(Generic[K, V]):
    """A mapping that forgets: each entry *ttl* after it was put, the least recently used if full.

    Without *ttl*, nothing grows old.
    """

    def __init__(self, *, ttl: timedelta | None = None, size: int = MEMORY_MAX) -> None:
        self._ttl_s = ttl.total_seconds() if ttl else float("inf")
        self._size = size
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if time.monotonic() - entry[0] >= self._ttl_s:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: K, value: V) -> None:
        self._entries[key] = (time.monotonic(), value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def pop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()

    def __contains__(self, key: K) -> bool:
        entry = self._entries.get(key)
        return entry is not None and time.monotonic() - entry[0] < self._ttl_s
