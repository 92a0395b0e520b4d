"""A cache in memory, bounded in bytes and in time."""

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
"""Size of an entry besides its key and value: table slots, its time and its weight."""

EXPIRE_PER_CALL = 2
"""Expired entries that each call removes. More than one, so that removal outruns insertion."""


class _Entry(NamedTuple, Generic[V]):
    value: V
    put_at: float
    weight: int


class BoundedCache(Generic[K, V]):
    """A mapping whose entries expire after *ttl*. A full one drops the least recently used entry.

    It is full when ``weight``, the size of all entries, reaches *max_bytes*. Without *ttl*, entries
    do not expire. Expired entries are removed soon, even if their keys are not read again.
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
        self._remove_expired()
        while self.weight > self._max_bytes:
            self._drop_first()

    def pop(self, key: K) -> None:
        if entry := self._entries.pop(key, None):
            self.weight -= entry.weight

    def clear(self) -> None:
        self._entries.clear()
        self.weight = 0

    def values(self) -> Iterator[V]:
        """Return the valid values, the least recently used first."""
        return iter(
            [entry.value for entry in self._entries.values() if not self._is_expired(entry)]
        )

    def __contains__(self, key: K) -> bool:
        return self._fresh(key) is not None

    def __len__(self) -> int:
        return len(self._entries)

    def _fresh(self, key: K) -> _Entry[V] | None:
        self._remove_expired()
        entry = self._entries.get(key)
        if entry is None or not self._is_expired(entry):
            return entry
        self.pop(key)
        return None

    def _is_expired(self, entry: _Entry[V]) -> bool:
        return time.monotonic() - entry.put_at >= self._ttl_s

    def _remove_expired(self) -> None:
        """Drop some expired entries at the front.

        Entries are in the order of their last use, so an expired one can be behind valid ones. It
        reaches the front within another *ttl*.
        """
        for _ in range(EXPIRE_PER_CALL):
            first = next(iter(self._entries.values()), None)
            if first is None or not self._is_expired(first):
                return
            self._drop_first()

    def _drop_first(self) -> None:
        _, entry = self._entries.popitem(last=False)
        self.weight -= entry.weight


def weight(value: object) -> int:
    """Return the approximate size of *value* with everything that it refers to, shared or not."""
    match value:
        case None | type():
            return 0
        case tuple() | list():
            return sys.getsizeof(value) + sum(map(weight, value))
        case _ if is_dataclass(value):
            own = getattr(value, "__dict__", {})  # includes cached properties
            attributes = {field.name: getattr(value, field.name) for field in fields(value)} | own
            held = sum(map(weight, attributes.values()))
            return sys.getsizeof(value) + sys.getsizeof(own) + held
        case _:
            return sys.getsizeof(value)
