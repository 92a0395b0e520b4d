"""Tasks and threads: runs that many callers share, stages of a stream, and an end that is one."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterator,
)
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")


class Coalesce(Generic[K, V]):
    """Runs one awaitable per key at a time and gives its outcome to everyone who asks meanwhile.

    A caller that is cancelled leaves the run to the others.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Future[V]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._running

    async def run(self, key: K, start: Callable[[], Awaitable[V]]) -> V:
        running = self._running.get(key)
        if running is None:
            running = asyncio.ensure_future(start())
            self._running[key] = running
            running.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(running)

    def _ended(self, key: K, done: asyncio.Future[V]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # if every caller was cancelled, nobody else would fetch it


async def end(*tasks: asyncio.Task[object], insist_after: timedelta = timedelta(seconds=1)) -> None:
    """Cancel *tasks* and return when they have ended; cancel again those that take no notice.

    Before Python 3.12, ``asyncio.wait_for`` swallows a cancellation that comes together with its
    result (https://github.com/python/cpython/issues/81839), and nats-py waits in no other way.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=insist_after.total_seconds())


async def ending(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*; when cancelled, ``end`` it, where one cancellation might be swallowed."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await end(task)
        if not task.cancelled():
            task.exception()  # so that nobody misses it
        raise


async def hedged(
    first: Coroutine[Any, Any, V],
    second: Callable[[], Coroutine[Any, Any, V | None]],
    *,
    after: timedelta,
) -> V:
    """Return the result of *first*, or that of *second* if it comes sooner and is not None.

    *second* begins only when *first* has not ended *after* a while; if it raises, *first* decides.
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
            if not slow.done() and not failed and (found := quick.result()) is not None:
                return found
        return await slow
    finally:
        await end_all(slow, quick)


async def end_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel *tasks* as ``end`` does, whatever they return or raise."""
    given = [task for task in tasks if task]
    await end(*given)
    for task in given:
        if not task.cancelled():
            task.exception()  # so that asyncio does not report it as lost


class heeded:  # noqa: N801 - reads as what becomes of a cancellation
    """Raises CancelledError at the end of a block that swallowed one, as ``end`` says.

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
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have *work*, which never ends by itself, go on for as long as the block runs."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        await end(*tasks)


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, V]) -> AsyncIterator[asyncio.Task[V]]:
    """Yield the task that does *work* while the block runs; it is ended with the block."""
    task = asyncio.create_task(work)
    task.add_done_callback(_seen)
    try:
        yield task
    finally:
        await end(task)


def _seen(task: asyncio.Task[V]) -> None:
    """Take note of what *task* failed with, in case the block ends before it asks."""
    if not task.cancelled():
        task.exception()


async def undisturbed(work: Awaitable[V]) -> V:
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


async def in_thread(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    """Return what *work* returns in a thread. When cancelled, wait until the thread is through.

    ``asyncio.to_thread`` would leave it at work on what its caller is about to close.
    """
    call = partial(copy_context().run, _called, work, *args, **kwargs)
    return await undisturbed(asyncio.get_running_loop().run_in_executor(None, call))


def _called(work: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> V:
    try:
        return work(*args, **kwargs)
    except StopIteration as exc:  # no future takes it: whoever awaits it would do so for ever
        raise RuntimeError("what ran in a thread raised StopIteration") from exc


async def in_steps(items: Iterator[V]) -> AsyncGenerator[V, None]:
    """Yield *items*, each made in a thread."""
    while (item := await in_thread(next, items, None)) is not None:
        yield item


class Beside:
    """Work that is done in its order while who gives it, in a thread, goes on.

    A pool does it; but who is *depth* pieces ahead, or waits for the end, does what the pool has
    not begun. So nobody waits for a thread to become free. Without a pool, all is done at once.
    """

    def __init__(self, *, pool: Executor | None, depth: int) -> None:
        self._pool = pool
        self._depth = depth
        self._waiting: deque[Callable[[], None]] = deque()
        self._turn = Lock()
        self._failure: Exception | None = None

    def give(self, work: Callable[[], None]) -> None:
        """Have *work* done, unless some that was given before has failed: that is raised."""
        if len(self._waiting) >= self._depth:
            self._do_next()
        self._check()
        if self._pool:
            self._waiting.append(work)
            self._pool.submit(self._do_next)
        else:
            self._do(work)

    def settle(self) -> None:
        """Return when all is done; raise what some of it failed with."""
        while self._waiting:
            self._do_next()
        with self._turn:  # somebody may be at the last of it
            self._check()

    def _do_next(self) -> None:
        with self._turn:
            if self._waiting:
                self._do(self._waiting.popleft())

    def _do(self, work: Callable[[], None]) -> None:
        if self._failure:  # it came after the last look at it, when this was given
            return
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - it is raised where the work is given
            self._failure = exc
            self._waiting.clear()

    def _check(self) -> None:
        if self._failure:
            raise self._failure


@dataclass(frozen=True, slots=True)
class _End:
    """What comes after the last item of a stream: nothing, or what it broke off with."""

    failure: Exception | None


@asynccontextmanager
async def ahead(
    items: AsyncGenerator[V, None], depth: int
) -> AsyncIterator[AsyncGenerator[V, None]]:
    """Yield *items*, made by a task that is up to *depth* of them ahead; close them at the end."""
    queue: asyncio.Queue[V | _End] = asyncio.Queue(depth)

    async def make() -> None:
        failure = None
        try:
            async with aclosing(items):
                async for item in items:
                    await queue.put(item)
        except Exception as exc:  # noqa: BLE001 - it is raised where the items are taken
            failure = exc
        await queue.put(_End(failure))

    async def made() -> AsyncGenerator[V, None]:
        while not isinstance(item := await queue.get(), _End):
            yield item
        if item.failure:
            raise item.failure

    making = asyncio.create_task(make())
    try:
        async with aclosing(made()) as stream:
            yield stream
    finally:
        await end(making)
