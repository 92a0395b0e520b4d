"""Many callers, one run."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from archiver.concurrency import Coalesce, end


def test_callers_at_the_same_time_share_one_run() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return runs

    async def play() -> list[int]:
        shared: Coalesce[str, int] = Coalesce()
        return await asyncio.gather(*(shared.run("key", start) for _ in range(50)))

    assert asyncio.run(play()) == [1] * 50


def test_the_next_caller_starts_anew() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        return runs

    async def play() -> list[int]:
        shared: Coalesce[str, int] = Coalesce()
        return [await shared.run("key", start), await shared.run("key", start)]

    assert asyncio.run(play()) == [1, 2]


def test_everyone_gets_the_error() -> None:
    async def start() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def play() -> list[BaseException | None]:
        shared: Coalesce[str, None] = Coalesce()
        return await asyncio.gather(
            *(shared.run("key", start) for _ in range(3)), return_exceptions=True
        )

    assert [type(outcome) for outcome in asyncio.run(play())] == [ValueError] * 3


def test_a_caller_that_leaves_does_not_take_the_others_with_it() -> None:
    async def start() -> str:
        await asyncio.sleep(0.05)
        return "done"

    async def play() -> str:
        shared: Coalesce[str, str] = Coalesce()
        first = asyncio.create_task(shared.run("key", start))
        second = asyncio.create_task(shared.run("key", start))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(play()) == "done"


def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while swallowed < 2:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            swallowed += 1
        await asyncio.sleep(60)

    async def play() -> bool:
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        await end(task, insist_after=timedelta(seconds=0.01))
        return task.cancelled()

    assert asyncio.run(play())
    assert swallowed == 2


def test_tasks_that_have_ended_are_left_in_peace() -> None:
    async def nothing() -> None:
        return None

    async def play() -> bool:
        task = asyncio.create_task(nothing())
        await task
        await end(task)
        await end()
        return task.cancelled()

    assert not asyncio.run(play())
