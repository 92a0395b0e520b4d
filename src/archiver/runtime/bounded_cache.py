"""What a process remembers for a while: bounded in bytes and in time."""

import sys
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MEGABYTE = 1 << 20

ENTRY_BYTES = 300
"""What an entry takes besides its key and value: places in the table, its time and its weight."""

LEAVE_AT_A_TIME = 2
"""Entries that are too old and leave with each call. More leave than come, so that all do."""


class _Entry(NamedTuple, Generic[V]):
    value: V
    put_at: float
    weight: int


class BoundedCache(Generic[K, V]):
    """A mapping that forgets each entry *ttl* after it was put, the least recently used if full.

    It is full when its entries weigh *max_bytes*. Without *ttl*, entries do not grow old. An entry
    that is too old leaves soon, whether or not its own key is read again. ``weight`` is that of
    all entries.
    """

    def __init__(self, *, max_bytes: int, ttl: timedelta | None = None) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl.total_seconds() if ttl else float("inf")
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self.weight = 0

    def get(self, key: K) -> V | None:
        entry = self._fresh(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, value: V) -> None:
        self.pop(key)
        entry = _Entry(value, time.monotonic(), ENTRY_BYTES + weight(key) + weight(value))
        if entry.weight > self._max_bytes:
            return
        self._entries[key] = entry
        self.weight += entry.weight
        self._let_old_ones_leave()
        while self.weight > self._max_bytes:
            self._drop_first()

    def pop(self, key: K) -> None:
        if entry := self._entries.pop(key, None):
            self.weight -= entry.weight

    def clear(self) -> None:
        self._entries.clear()
        self.weight = 0

    def values(self) -> Iterator[V]:
        """Return the values that are remembered now, the least recently used first."""
        return iter([entry.value for entry in self._entries.values() if not self._is_old(entry)])

    def __contains__(self, key: K) -> bool:
        return self._fresh(key) is not None

    def __len__(self) -> int:
        """Return how many entries are held, of which some may be about to leave."""
        return len(self._entries)

    def _fresh(self, key: K) -> _Entry[V] | None:
        self._let_old_ones_leave()
        entry = self._entries.get(key)
        if entry is None or not self._is_old(entry):
            return entry
        self.pop(key)
        return None

    def _is_old(self, entry: _Entry[V]) -> bool:
        return time.monotonic() - entry.put_at >= self._ttl_s

    def _let_old_ones_leave(self) -> None:
        """Drop some at the front that are too old.

        Entries stand in the order of their last use. So one that is too old stands behind younger
        ones for less than another *ttl*.
        """
        for _ in range(LEAVE_AT_A_TIME):
            first = next(iter(self._entries.values()), None)
            if first is None or not self._is_old(first):
                return
            self._drop_first()

    def _drop_first(self) -> None:
        _, entry = self._entries.popitem(last=False)
        self.weight -= entry.weight


def weight(value: object) -> int:
    """Return about how many bytes *value* takes, with what hangs on it, shared or not."""
    match value:
        case None | type():
            return 0
        case tuple() | list():
            return sys.getsizeof(value) + sum(map(weight, value))
        case _ if is_dataclass(value):
            own = getattr(value, "__dict__", {})  # with what is computed once, and kept
            attributes = {field.name: getattr(value, field.name) for field in fields(value)} | own
            held = sum(map(weight, attributes.values()))
            return sys.getsizeof(value) + sys.getsizeof(own) + held
        case _:
            return sys.getsizeof(value)
