"""What a process remembers, and for how long."""

import time
from datetime import timedelta

from archiver.memory import Memory


def test_what_is_put_is_there_until_it_is_taken_away() -> None:
    memory: Memory[str, int] = Memory()
    memory.put("one", 1)

    assert memory.get("one") == 1
    assert "one" in memory
    memory.pop("one")
    memory.pop("one")
    assert memory.get("one") is None
    assert "one" not in memory


def test_an_entry_is_forgotten_when_its_time_is_over() -> None:
    memory: Memory[str, int] = Memory(ttl=timedelta(milliseconds=20))
    memory.put("one", 1)
    time.sleep(0.03)

    assert "one" not in memory
    assert memory.get("one") is None


def test_when_it_is_full_the_least_recently_used_goes() -> None:
    memory: Memory[str, int] = Memory(size=2)
    memory.put("one", 1)
    memory.put("two", 2)
    memory.get("one")
    memory.put("three", 3)

    assert [memory.get(key) for key in ("one", "two", "three")] == [1, None, 3]


def test_clearing_forgets_everything() -> None:
    memory: Memory[str, int] = Memory()
    memory.put("one", 1)
    memory.clear()

    assert memory.get("one") is None
