"""A second attempt that starts when the first is slow."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from archiver.runtime.tasks import cancel_and_wait

V = TypeVar("V")


async def hedged(
    first: Awaitable[V], second: Callable[[], Awaitable[V | None]], *, after: timedelta
) -> V:
    """Return the result of *first*, or that of *second* if it is earlier and not None.

    *second* starts only if *first* takes longer than *after*. If *second* raises, *first* decides.
    The slower one is cancelled. *first* has no task of its own, which would cost 9 µs.
    """
    results: list[V] = []
    attempts: list[asyncio.Task[None]] = []

    async def try_second() -> None:
        if (result := await second()) is not None:
            results.append(result)
            limit.reschedule(loop.time())  # interrupts the first

    loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
    timer = loop.call_later(
        after.total_seconds(), lambda: attempts.append(asyncio.create_task(try_second()))
    )
    try:
        async with limit:
            return await first
    except TimeoutError:
        if limit.expired():
            return results[0]
        raise
    finally:
        timer.cancel()
        await cancel_and_wait(*attempts)
        for attempt in attempts:
            if not attempt.cancelled():
                attempt.exception()  # retrieved, so that asyncio does not log it
