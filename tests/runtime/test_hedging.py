"""A second attempt starts when the first is slow."""

import asyncio
from datetime import timedelta

import pytest

from archiver.runtime.tasks import hedged


@pytest.mark.parametrize(
    ("first_s", "second", "expected"),
    (
        (0, "second", "first"),
        (60, "second", "second"),
        (0.05, None, "first"),
    ),
)
def test_a_result_of_the_second_attempt_wins_if_the_first_is_slow(
    first_s: float, second: str | None, expected: str
) -> None:
    ended: list[str] = []

    async def first() -> str:
        try:
            await asyncio.sleep(first_s)
            return "first"
        finally:
            ended.append("first")

    async def other() -> str | None:
        return second

    async def play() -> str:
        after = timedelta(seconds=0.01 if first_s else 30)
        return await hedged(first(), other, after=after)

    assert asyncio.run(play()) == expected
    assert ended == ["first"]


def test_a_late_failure_of_the_first_attempt_is_raised_without_a_second_result() -> None:
    async def first() -> str:
        await asyncio.sleep(0.02)
        raise LookupError

    async def nothing() -> str | None:
        return None

    with pytest.raises(LookupError):
        asyncio.run(hedged(first(), nothing, after=timedelta(0)))


def test_a_failed_second_attempt_leaves_the_first_to_decide() -> None:
    async def play() -> str:
        failed = asyncio.Event()

        async def first() -> str:
            await failed.wait()
            return "first"

        async def second() -> str | None:
            failed.set()
            raise ValueError

        return await hedged(first(), second, after=timedelta(0))

    assert asyncio.run(play()) == "first"
