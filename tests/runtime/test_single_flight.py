"""Concurrent callers share one run per key."""

import asyncio

import pytest

from archiver.runtime.single_flight import SingleFlight


def test_concurrent_callers_share_one_run() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return runs

    async def play() -> list[int]:
        shared: SingleFlight[str, int] = SingleFlight()
        return await asyncio.gather(*(shared.join_or_start("key", start) for _ in range(50)))

    assert asyncio.run(play()) == [1] * 50


def test_a_later_caller_starts_a_new_run() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        return runs

    async def play() -> list[int]:
        shared: SingleFlight[str, int] = SingleFlight()
        return [await shared.join_or_start("key", start), await shared.join_or_start("key", start)]

    assert asyncio.run(play()) == [1, 2]


def test_every_caller_gets_the_error() -> None:
    async def start() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def play() -> list[BaseException | None]:
        shared: SingleFlight[str, None] = SingleFlight()
        return await asyncio.gather(
            *(shared.join_or_start("key", start) for _ in range(3)), return_exceptions=True
        )

    assert [type(outcome) for outcome in asyncio.run(play())] == [ValueError] * 3


def test_cancelling_one_caller_does_not_cancel_the_run() -> None:
    async def start() -> str:
        await asyncio.sleep(0.05)
        return "done"

    async def play() -> str:
        shared: SingleFlight[str, str] = SingleFlight()
        first = asyncio.create_task(shared.join_or_start("key", start))
        second = asyncio.create_task(shared.join_or_start("key", start))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(play()) == "done"
