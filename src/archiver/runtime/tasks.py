"""Asyncio tasks that end with their block, and cancellation that is not lost."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

V = TypeVar("V")
R = TypeVar("R")


async def cancel_and_wait(
    *tasks: asyncio.Task[object], insist_after: timedelta = timedelta(seconds=1)
) -> None:
    """Cancel *tasks* until all have ended, again every *insist_after*.

    Before Python 3.12, ``asyncio.wait_for`` swallows a cancellation that arrives together with its
    result (https://github.com/python/cpython/issues/81839). nats-py uses it for every wait.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=insist_after.total_seconds())


async def cancellable(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*. On cancellation, cancel it as ``cancel_and_wait`` does."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await cancel_and_wait(task)
        mark_retrieved(task)
        raise


class reraise_cancellation:  # noqa: N801 - reads as a statement about the block
    """Raises CancelledError after a block that swallowed one; see ``cancel_and_wait``.

    A TaskGroup cancels its tasks only once. A task that continues keeps the group open forever.
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
    """Run *work*, which does not end by itself, while the block runs."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        await cancel_and_wait(*tasks)


@asynccontextmanager
async def concurrently(work: Coroutine[Any, Any, V]) -> AsyncIterator[asyncio.Task[V]]:
    """Yield a task that runs *work* and is cancelled at the end of the block."""
    task = asyncio.create_task(work)
    task.add_done_callback(mark_retrieved)  # the block may end without awaiting it
    try:
        yield task
    finally:
        await cancel_and_wait(task)


async def all_or_none(work: Iterable[Coroutine[Any, Any, V]]) -> list[V]:
    """Return the results of all *work*, which runs at the same time.

    If one raises, the others are cancelled, and its exception is raised.
    """
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(mark_retrieved)
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


async def map_in_order(
    items: AsyncGenerator[V, None], work: Callable[[V], Coroutine[Any, Any, R]], *, at_a_time: int
) -> AsyncGenerator[R, None]:
    """Yield the result of *work* for each of *items*, in their order; raise what one raises.

    So many calls run *at_a_time*. Further items are read only when a result was taken.
    """
    running: deque[asyncio.Task[R]] = deque()
    try:
        async with aclosing(items):
            async for item in items:
                running.append(asyncio.create_task(work(item)))
                if len(running) == at_a_time:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
    finally:
        for task in running:
            task.add_done_callback(mark_retrieved)
        await cancel_and_wait(*running)


async def complete_despite_cancellation(work: Awaitable[V]) -> V:
    """Return the result of *work*. A cancelled caller waits for its end before it raises."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        mark_retrieved(running)
        raise
    finally:
        # Otherwise, an exception keeps itself alive, and all that its frames hold, until the
        # garbage collector finds it: it is in the future, and the future is in its traceback.
        del running, work


def mark_retrieved(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging that the exception of *future* was never retrieved."""
    if not future.cancelled():
        future.exception()
