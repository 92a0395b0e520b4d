"""Many callers, one run; stages that run ahead; ends that are ends."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

import pytest

from archiver.runtime.hedging import hedged
from archiver.runtime.single_flight import SingleFlight
from archiver.runtime.tasks import cancel_and_wait, cancellable, reraise_cancellation
from archiver.runtime.threads import OrderedWork, run_in_thread


def test_callers_at_the_same_time_share_one_run() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return runs

    async def play() -> list[int]:
        shared: SingleFlight[str, int] = SingleFlight()
        return await asyncio.gather(*(shared.run("key", start) for _ in range(50)))

    assert asyncio.run(play()) == [1] * 50


def test_the_next_caller_starts_anew() -> None:
    runs = 0

    async def start() -> int:
        nonlocal runs
        runs += 1
        return runs

    async def play() -> list[int]:
        shared: SingleFlight[str, int] = SingleFlight()
        return [await shared.run("key", start), await shared.run("key", start)]

    assert asyncio.run(play()) == [1, 2]


def test_everyone_gets_the_error() -> None:
    async def start() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def play() -> list[BaseException | None]:
        shared: SingleFlight[str, None] = SingleFlight()
        return await asyncio.gather(
            *(shared.run("key", start) for _ in range(3)), return_exceptions=True
        )

    assert [type(outcome) for outcome in asyncio.run(play())] == [ValueError] * 3


def test_a_caller_that_leaves_does_not_take_the_others_with_it() -> None:
    async def start() -> str:
        await asyncio.sleep(0.05)
        return "done"

    async def play() -> str:
        shared: SingleFlight[str, str] = SingleFlight()
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
        await cancel_and_wait(task, insist_after=timedelta(seconds=0.01))
        return task.cancelled()

    assert asyncio.run(play())
    assert swallowed == 2


def test_a_cancellation_that_was_swallowed_in_a_block_is_heeded_at_its_end() -> None:
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


def test_a_block_minds_no_cancellation_that_came_before_it() -> None:
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


def test_tasks_that_have_ended_are_left_in_peace() -> None:
    async def nothing() -> None:
        return None

    async def play() -> bool:
        task = asyncio.create_task(nothing())
        await task
        await cancel_and_wait(task)
        await cancel_and_wait()
        return task.cancelled()

    assert not asyncio.run(play())


def test_a_thread_is_waited_for_although_its_caller_is_cancelled() -> None:
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


def test_a_thread_that_runs_out_of_items_is_not_waited_for_for_ever() -> None:
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
    """Yield a pool whose only thread does nothing for anybody."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(over.wait)
        yield pool
        over.set()


class Overtaking(ThreadPoolExecutor):
    """Has all be over that the pool was given before, when it is asked for the second time."""

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


def test_what_is_done_beside_is_done_in_its_order() -> None:
    done: list[int] = []

    with ThreadPoolExecutor(4) as pool:
        beside = OrderedWork(pool=pool, depth=3)
        for number in range(1000):
            beside.submit(partial(done.append, number))
        beside.join()

    assert done == list(range(1000))


def test_what_a_busy_pool_does_not_do_is_done_by_who_gives_it() -> None:
    done: list[int] = []

    with busy_pool() as pool:
        beside = OrderedWork(pool=pool, depth=3)
        for number in range(5):
            beside.submit(partial(done.append, number))
        assert done == [0, 1]
        beside.join()

    assert done == list(range(5))


def test_who_settles_waits_for_what_the_pool_has_begun() -> None:
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
def test_a_failure_beside_is_raised_again_and_again_and_nothing_done_after_it(
    *, helped: bool
) -> None:
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


def test_what_is_given_in_the_instant_of_a_failure_is_not_done() -> None:
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


def test_work_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
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


def test_what_work_to_be_ended_raises_comes_out() -> None:
    async def broken() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(cancellable(broken()))


@pytest.mark.parametrize(
    ("first_s", "second", "expected"),
    (
        (0, "second", "first"),
        (60, "second", "second"),
        (0.05, None, "first"),
    ),
)
def test_the_second_one_counts_if_the_first_is_slow_and_it_has_something(
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


def test_a_first_one_that_fails_late_fails_although_the_second_has_nothing() -> None:
    async def first() -> str:
        await asyncio.sleep(0.02)
        raise LookupError

    async def nothing() -> str | None:
        return None

    with pytest.raises(LookupError):
        asyncio.run(hedged(first(), nothing, after=timedelta(0)))


def test_a_second_try_that_fails_leaves_the_answer_to_the_first() -> None:
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
