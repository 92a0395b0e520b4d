"""Asyncio tasks that end when their block ends, and cancellation that is not lost."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Coroutine,
)
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

V = TypeVar("V")


async def cancel_and_wait(
    *tasks: asyncio.Task[object], insist_after: timedelta = timedelta(seconds=1)
) -> None:
    """Cancel *tasks* and return when they have ended; cancel again those that take no notice.

    Before Python 3.12, ``asyncio.wait_for`` swallows a cancellation that comes together with its
    result (https://github.com/python/cpython/issues/81839), and nats-py waits in no other way.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=insist_after.total_seconds())


async def cancellable(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*; on cancellation, cancel it with ``cancel_and_wait`` until it has ended."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await cancel_and_wait(task)
        if not task.cancelled():
            task.exception()  # so that nobody misses it
        raise


async def cancel_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel *tasks* as ``cancel_and_wait`` does, whatever they return or raise."""
    given = [task for task in tasks if task]
    await cancel_and_wait(*given)
    for task in given:
        if not task.cancelled():
            task.exception()  # so that asyncio does not report it as lost


class reraise_cancellation:  # noqa: N801 - reads as what becomes of a cancellation
    """Raises CancelledError at the end of a block that swallowed one, as ``cancel_and_wait`` says.

    A TaskGroup cancels its tasks once: one that goes on all the same keeps it open for ever.
    """

    def __enter__(self) -> None:
        self._before = _cancellations()

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        ended = exc is None or isinstance(exc, Exception)
        if ended and _cancellations() > self._before:
            raise asyncio.CancelledError from exc


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have *work*, which never ends by itself, go on for as long as the block runs."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        await cancel_and_wait(*tasks)


@asynccontextmanager
async def concurrently(work: Coroutine[Any, Any, V]) -> AsyncIterator[asyncio.Task[V]]:
    """Yield the task that does *work* while the block runs; it is ended with the block."""
    task = asyncio.create_task(work)
    task.add_done_callback(_seen)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


def _seen(task: asyncio.Task[V]) -> None:
    """Take note of what *task* failed with, in case the block ends before it asks."""
    if not task.cancelled():
        task.exception()


async def uninterrupted(work: Awaitable[V]) -> V:
    """Return what *work* returns. When cancelled, even again and again, let it come to its end."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # so that nobody misses it
        raise
