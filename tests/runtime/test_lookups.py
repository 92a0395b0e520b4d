"""Lookups that callers share, and that changes overtake."""

import asyncio
import traceback
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from archiver.runtime.lookups import Lookups

T = TypeVar("T")


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


class Place:
    """A place whose lookups return its state at their beginning, once they are allowed to."""

    def __init__(self) -> None:
        self.there = "nothing"
        self.lookups: Lookups[str] = Lookups()
        self.begun = 0
        self.remembered: list[str] = []
        self.allowed = asyncio.Event()

    async def look(self) -> str:
        self.begun += 1
        there = self.there
        await self.allowed.wait()
        await asyncio.sleep(0)  # a real lookup takes at least a turn
        return there

    async def ask(self, *, since: datetime | None = None, key: str = "key") -> str:
        return await self.lookups.join_or_start(
            key, self.look, remember=lambda made: self.remembered.append(made.found), since=since
        )


async def asked(place: Place, *, key: str = "key") -> "asyncio.Task[str]":
    """Return a call whose lookup is running."""
    asking = asyncio.create_task(place.ask(key=key))
    await asyncio.sleep(0.01)
    return asking


def test_concurrent_callers_share_one_lookup() -> None:
    async def scenario() -> None:
        place = Place()
        asking = [await asked(place) for _ in range(5)]
        place.allowed.set()
        assert await asyncio.gather(*asking) == ["nothing"] * 5
        assert (place.begun, place.remembered) == (1, ["nothing"])

    run(scenario())


def test_a_caller_after_a_change_gets_the_new_value() -> None:
    async def scenario() -> None:
        place = Place()
        before = await asked(place)
        place.there = "something"
        place.lookups.overtake("key")
        after = await asked(place)
        place.allowed.set()
        assert (await before, await after) == ("something", "something")
        assert (place.begun, place.remembered) == (2, ["something"])

    run(scenario())


def test_a_change_of_one_key_repeats_no_lookup_of_another() -> None:
    async def scenario() -> None:
        place = Place()
        asking = await asked(place, key="another")
        place.lookups.overtake("key")
        place.allowed.set()
        await asking
        assert (place.begun, place.remembered) == (1, ["nothing"])

    run(scenario())


def test_after_a_gap_every_running_lookup_is_repeated() -> None:
    async def scenario() -> None:
        place = Place()
        asking = [await asked(place, key=key) for key in ("key", "another")]
        place.lookups.overtake_all()
        place.allowed.set()
        await asyncio.gather(*asking)
        assert place.begun == 4

    run(scenario())


def test_a_lookup_that_began_too_early_is_repeated() -> None:
    async def scenario() -> None:
        place = Place()
        early = await asked(place)
        since = datetime.now(UTC)
        place.there = "something"
        late = asyncio.create_task(place.ask(since=since))
        await asyncio.sleep(0.01)
        place.allowed.set()
        assert (await early, await late) == ("nothing", "something")

    run(scenario())


def test_a_lookup_is_repeated_only_once() -> None:
    async def scenario() -> None:
        place = Place()
        place.allowed.set()

        async def look() -> str:
            place.lookups.overtake("key")
            return await place.look()

        found = await place.lookups.join_or_start("key", look, remember=lambda _made: None)
        assert (found, place.begun) == ("nothing", 2)

    run(scenario())


def test_a_caller_that_is_cancelled_leaves_the_lookup_to_the_others() -> None:
    async def scenario() -> None:
        place = Place()
        first, *others = [await asked(place) for _ in range(3)]
        first.cancel()
        await asyncio.sleep(0.01)
        place.allowed.set()
        assert await asyncio.gather(*others) == ["nothing"] * 2
        assert (place.begun, place.remembered) == (1, ["nothing"])
        assert first.cancelled()

    run(scenario())


def test_an_exception_reaches_every_caller() -> None:
    async def scenario() -> None:
        place = Place()

        async def look() -> str:
            await place.look()
            raise LookupError

        asking = [
            asyncio.create_task(
                place.lookups.join_or_start("key", look, remember=lambda _made: None)
            )
            for _ in range(100)
        ]
        await asyncio.sleep(0.01)
        place.allowed.set()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ends] == [LookupError] * 100
        assert place.begun == 1
        (failure,) = {end for end in ends if isinstance(end, LookupError)}
        assert len(traceback.extract_tb(failure.__traceback__)) < 10

    run(scenario())
