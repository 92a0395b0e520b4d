"""Work in threads keeps its order, its errors and its end."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from archiver.runtime.threads import OrderedWork, run_in_thread


def test_a_cancelled_caller_waits_for_its_thread() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)
        ended.set()

    async def scenario() -> None:
        caller = asyncio.create_task(run_in_thread(work))
        await asyncio.to_thread(started.wait, 10)
        for _ in range(3):
            caller.cancel()
            await asyncio.sleep(0.01)
        assert not caller.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended.is_set()

    asyncio.run(scenario())


def test_stop_iteration_in_a_thread_is_raised_as_an_error() -> None:
    outcome: list[str] = []

    def play() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            asyncio.run(run_in_thread(next, iter(())))
        outcome.append("raised")

    playing = threading.Thread(target=play, daemon=True)  # it cannot be cancelled where it hangs
    playing.start()
    playing.join(10)
    assert outcome == ["raised"]


@contextmanager
def busy_pool() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose only thread is blocked."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(over.wait)
        yield pool
        over.set()


class Overtaking(ThreadPoolExecutor):
    """Completes all submitted work before it accepts a second submission."""

    def __init__(self) -> None:
        super().__init__(1)
        self.late = threading.Event()
        self._asked = 0

    def __bool__(self) -> bool:
        self._asked += 1
        if self._asked > 1:
            self.late.set()
            self.submit(int).result()
        return True


def test_submitted_work_runs_in_order() -> None:
    done: list[int] = []

    with ThreadPoolExecutor(4) as pool:
        beside = OrderedWork(pool=pool, depth=3)
        for number in range(1000):
            beside.submit(partial(done.append, number))
        beside.join()

    assert done == list(range(1000))


def test_the_submitting_thread_runs_the_work_of_a_busy_pool() -> None:
    done: list[int] = []

    with busy_pool() as pool:
        beside = OrderedWork(pool=pool, depth=3)
        for number in range(5):
            beside.submit(partial(done.append, number))
        assert done == [0, 1]
        beside.join()

    assert done == list(range(5))


def test_join_waits_for_work_that_the_pool_runs() -> None:
    begun, released = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        released.wait(10)
        done.append("work")

    with ThreadPoolExecutor(2) as pool:
        beside = OrderedWork(pool=pool, depth=3)
        beside.submit(work)
        begun.wait(10)
        settled = pool.submit(beside.join)
        released.set()
        settled.result()
        assert done == ["work"]


@pytest.mark.parametrize("helped", (True, False))
def test_a_failure_is_raised_repeatedly_and_ends_the_work(*, helped: bool) -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("over")

    with busy_pool() as pool:
        beside = OrderedWork(pool=pool if helped else None, depth=3)
        beside.submit(fail)
        for step in (beside.join, partial(beside.submit, partial(done.append, "more"))):
            with pytest.raises(ValueError, match="over"):
                step()

    assert not done


def test_work_submitted_during_a_failure_does_not_run() -> None:
    done: list[str] = []

    with Overtaking() as pool:

        def fail() -> None:
            pool.late.wait(10)
            raise ValueError("over")

        beside = OrderedWork(pool=pool, depth=3)
        beside.submit(fail)
        beside.submit(partial(done.append, "more"))
        with pytest.raises(ValueError, match="over"):
            beside.join()

    assert not done


class Body(bytearray):
    """Something that occupies memory, and can be referred to weakly."""


@pytest.mark.parametrize("fails", (False, True))
def test_what_a_thread_has_used_is_released_without_the_garbage_collector(*, fails: bool) -> None:
    """The web process collects rarely: a body that each refused request left would fill memory."""

    def use(body: Body) -> int:
        if fails:
            raise ValueError
        return len(body)

    async def handle() -> "weakref.ref[Body]":
        body = Body(b"x")
        with suppress(ValueError):
            await run_in_thread(lambda: use(body))
        return weakref.ref(body)

    gc.disable()
    try:
        assert asyncio.run(handle())() is None
    finally:
        gc.enable()
