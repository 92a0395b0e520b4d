"""The bounds of the cache, in bytes and in time."""

import time
import tracemalloc
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.runtime.bounded_cache import ENTRY_BYTES, MEGABYTE, BoundedCache, weight

ROOM = 10_000


@dataclass(frozen=True)
class Thing:
    name: str
    parts: tuple[str, int]


def test_an_entry_stays_until_it_is_removed() -> None:
    memory: BoundedCache[str, int] = BoundedCache(max_bytes=ROOM)
    memory.put("one", 1)

    assert memory.get("one") == 1
    assert "one" in memory
    memory.pop("one")
    memory.pop("one")
    assert memory.get("one") is None
    assert "one" not in memory


def test_an_entry_expires() -> None:
    memory: BoundedCache[str, int] = BoundedCache(ttl=timedelta(milliseconds=20), max_bytes=ROOM)
    memory.put("one", 1)
    time.sleep(0.03)

    assert "one" not in memory
    assert memory.get("one") is None


def test_a_full_cache_drops_the_least_recently_used_entry() -> None:
    memory: BoundedCache[str, int] = BoundedCache(
        max_bytes=2 * (ENTRY_BYTES + weight("three") + weight(3))
    )
    memory.put("one", 1)
    memory.put("two", 2)
    memory.get("one")
    memory.put("three", 3)

    assert [memory.get(key) for key in ("one", "two", "three")] == [1, None, 3]


def test_an_entry_larger_than_the_cache_is_not_stored() -> None:
    memory: BoundedCache[str, bytes] = BoundedCache(max_bytes=ROOM)
    memory.put("one", b"1")
    memory.put("two", b"2")
    memory.put("two", bytes(ROOM))

    assert memory.get("one") == b"1"
    assert memory.get("two") is None


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.binary(max_size=800), st.booleans()), max_size=60
    )
)
def test_its_weight_is_that_of_its_entries(steps: list[tuple[str, bytes, bool]]) -> None:
    memory: BoundedCache[str, bytes] = BoundedCache(max_bytes=3000)
    for key, value, stays in steps:
        memory.put(key, value)
        if not stays:
            memory.pop(key)
        held = sum(ENTRY_BYTES + weight(key) + weight(value) for value in memory.values())
        assert held == memory.weight <= 3000


def test_expired_entries_are_removed_without_being_read() -> None:
    memory: BoundedCache[int, int] = BoundedCache(
        ttl=timedelta(milliseconds=20), max_bytes=MEGABYTE
    )
    for number in range(100):
        memory.put(number, number)
    time.sleep(0.03)
    for _ in range(100):
        memory.get(-1)

    assert len(memory) == 0
    assert memory.weight == 0


def test_the_bound_is_in_actual_bytes() -> None:
    """The weight is close to the memory that the process holds, whatever is stored."""
    memory: BoundedCache[tuple[str, str], Thing] = BoundedCache(max_bytes=MEGABYTE // 4)
    tracemalloc.start()
    try:
        for number in range(1500):
            name = f"{number}{'x' * (number % 200)}"
            memory.put((name, name * 2), Thing(name=name * 3, parts=(name * 4, number)))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(memory) > 100
    assert held_bytes < 0.4 * MEGABYTE


def test_clear_removes_everything() -> None:
    memory: BoundedCache[str, int] = BoundedCache(max_bytes=ROOM)
    memory.put("one", 1)
    memory.clear()

    assert memory.get("one") is None
