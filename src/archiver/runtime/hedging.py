"""A second attempt that starts when the first is slow."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from archiver.runtime.tasks import cancel_all

V = TypeVar("V")


async def hedged(
    first: Coroutine[Any, Any, V],
    second: Callable[[], Coroutine[Any, Any, V | None]],
    *,
    after: timedelta,
) -> V:
    """Return the result of *first*, or that of *second* if it is earlier and not None.

    *second* starts only if *first* takes longer than *after*. If *second* raises, *first* decides.
    The slower one is cancelled.
    """
    slow = asyncio.create_task(first)
    quick: asyncio.Task[V | None] | None = None
    try:
        await asyncio.wait({slow}, timeout=after.total_seconds())
        if not slow.done():
            quick = asyncio.create_task(second())
            await asyncio.wait({slow, quick}, return_when=asyncio.FIRST_COMPLETED)
            failed = not quick.done() or quick.exception() is not None
            if not slow.done() and not failed and (result := quick.result()) is not None:
                return result
        return await slow
    finally:
        await cancel_all(slow, quick)
