"""Cancelled tasks end, and cancellations are not lost."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta

import pytest

from archiver.runtime.tasks import (
    cancel_and_wait,
    cancellable,
    map_in_order,
    reraise_cancellation,
)


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
        await cancel_and_wait(task, insist_after=timedelta(seconds=0.01))
        return task.cancelled()

    assert asyncio.run(play())
    assert swallowed == 2


def test_a_swallowed_cancellation_is_raised_at_the_end_of_the_block() -> None:
    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def go_on(error: Exception | None) -> None:
        while True:
            with reraise_cancellation():
                await swallow()
                if error:
                    raise error

    async def play(error: Exception | None) -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:  # which cancels only once
            going_on = group.create_task(go_on(error))
            await asyncio.sleep(0)
            going_on.cancel()

    asyncio.run(play(None))
    asyncio.run(play(ValueError("which came with it")))


def test_a_cancellation_before_the_block_is_ignored() -> None:
    async def clean_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with reraise_cancellation():
                await asyncio.sleep(0)
            return "cleaned up"
        return "not cancelled"

    async def play() -> str:
        cleaning = asyncio.create_task(clean_up())
        await asyncio.sleep(0)
        cleaning.cancel()
        return await cleaning

    assert asyncio.run(play()) == "cleaned up"


def test_ended_tasks_are_not_cancelled() -> None:
    async def nothing() -> None:
        return None

    async def play() -> bool:
        task = asyncio.create_task(nothing())
        await task
        await cancel_and_wait(task)
        await cancel_and_wait()
        return task.cancelled()

    assert not asyncio.run(play())


def test_work_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed: list[int] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(1)

    async def play() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:  # which cancels once
            working = group.create_task(cancellable(stubborn()))
            await asyncio.sleep(0.01)
            working.cancel()

    asyncio.run(play())
    assert swallowed == [1]


def test_the_error_of_cancellable_work_is_raised() -> None:
    async def broken() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(cancellable(broken()))


async def numbers(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number


def test_results_come_in_order_from_a_bounded_number_of_calls() -> None:
    running = most = 0

    async def double(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number % 10):  # later items end first
            await asyncio.sleep(0)
        running -= 1
        return 2 * number

    async def play() -> list[int]:
        return [each async for each in map_in_order(numbers(100), double, at_a_time=4)]

    assert asyncio.run(play()) == list(range(0, 200, 2))
    assert most == 4


def test_a_call_that_fails_ends_the_others() -> None:
    ended: list[int] = []

    async def fail_at_three(number: int) -> int:
        try:
            if number == 3:
                raise ValueError(number)
            if number > 3:
                await asyncio.sleep(60)
        finally:
            ended.append(number)
        return number

    async def play() -> None:
        async for _ in map_in_order(numbers(100), fail_at_three, at_a_time=8):
            pass

    with pytest.raises(ValueError, match="3"):
        asyncio.run(play())
    assert sorted(ended) == list(range(len(ended)))
