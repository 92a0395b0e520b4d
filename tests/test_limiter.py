"""Limits of clients and of queues, and the log of refusals."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import pytest
from structlog.testing import capture_logs

from archiver.errors import LimitReached, QueueFull, TooManyLookups, TooManyNewTasks, TooManyTasks
from archiver.limiter import ClientLimits, Limiter
from archiver.ports.queue import Standing
from archiver.tasks import LIGHT_MAX
from archiver.testing import MemoryEngine

LIMITS = ClientLimits(
    open_tasks=5, tasks_per_minute=3, lookups_per_minute=2, queue_max={"hgmo": 20}
)
IDLE = Standing(open_tasks=0, waiting=0)


P = ParamSpec("P")


class Clock:
    now = 60.0 * 1000

    def __call__(self) -> float:
        return self.now


def refusal(
    call: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs
) -> LimitReached | None:
    """Return the error that a call raises, if any."""

    async def play() -> LimitReached | None:
        try:
            await call(*args, **kwargs)
        except LimitReached as exc:
            return exc
        return None

    return asyncio.run(play())


def test_each_client_has_its_own_tasks_per_minute() -> None:
    clock = Clock()
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine(), now=clock)
    got = [refusal(limiter.count_task, "a", IDLE) for _ in range(4)]
    assert got[:3] == [None] * 3
    assert isinstance(got[3], TooManyNewTasks)
    assert refusal(limiter.count_task, "b", IDLE) is None
    clock.now += 60
    assert refusal(limiter.count_task, "a", IDLE) is None


def test_a_refusal_says_how_long_until_the_next_minute() -> None:
    clock = Clock()
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine(), now=clock)
    clock.now += 48
    *_, last = [refusal(limiter.count_lookup, "a") for _ in range(3)]
    assert isinstance(last, TooManyLookups)
    assert (last.quota, last.retry_after.total_seconds()) == (2, 12)


def test_processes_share_the_counts_of_the_engine() -> None:
    engine, clock = MemoryEngine(), Clock()
    one, two = (Limiter(limits=LIMITS, counters=engine, now=clock) for _ in range(2))
    got = [refusal(process.count_task, "a", IDLE) for process in (one, two, one, two)]
    assert [bool(each) for each in got] == [False, False, False, True]


def test_without_an_engine_each_process_admits_the_whole_limit() -> None:
    engine, clock = MemoryEngine(), Clock()
    engine.down = True
    for process in [Limiter(limits=LIMITS, counters=engine, now=clock) for _ in range(2)]:
        got = [refusal(process.count_task, "a", IDLE) for _ in range(4)]
        assert [bool(each) for each in got] == [False] * 3 + [True]


class Forgetful:
    """Counters of an engine that loses its data all the time."""

    async def count(self, kind: str, client: str, *, minute: int) -> int:  # noqa: ARG002
        return 1


def test_an_engine_that_lost_its_counts_admits_no_more() -> None:
    limiter = Limiter(limits=LIMITS, counters=Forgetful(), now=Clock())
    got = [refusal(limiter.count_task, "a", IDLE) for _ in range(5)]
    assert [bool(each) for each in got] == [False] * 3 + [True] * 2


def test_a_client_over_its_limit_costs_the_engine_nothing() -> None:
    engine, clock = MemoryEngine(), Clock()
    limiter = Limiter(limits=LIMITS, counters=engine, now=clock)
    for _ in range(50):
        refusal(limiter.count_lookup, "a")
    counted = asyncio.run(engine.count("lookups", "a", minute=1000))
    assert counted == 3


@pytest.mark.parametrize(("open_tasks", "refused"), ((4, False), (5, True), (6, True)))
def test_open_tasks_are_limited(open_tasks: int, refused: bool) -> None:  # noqa: FBT001
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine())
    standing = Standing(open_tasks=open_tasks, waiting=0)
    got = refusal(limiter.count_task, "a", standing)
    assert isinstance(got, TooManyTasks) == refused


def test_zero_means_no_limit() -> None:
    limiter = Limiter(limits=ClientLimits(), counters=MemoryEngine())
    standing = Standing(open_tasks=10**6, waiting=10**6)
    for _ in range(200):
        assert refusal(limiter.count_task, "a", standing) is None
        assert refusal(limiter.count_lookup, "a") is None
    limiter.require_room("hgmo", standing)


@pytest.mark.parametrize(
    ("open_tasks", "waiting", "full"),
    (
        (LIGHT_MAX, 17, False),
        (LIGHT_MAX, 18, True),
        (LIGHT_MAX - 1, 19, False),
        (0, 20, True),
    ),
)
def test_the_last_tenth_of_a_queue_is_kept_for_light_clients(
    open_tasks: int,
    waiting: int,
    full: bool,  # noqa: FBT001
) -> None:
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine())
    standing = Standing(open_tasks=open_tasks, waiting=waiting)
    limiter.require_room("other", standing)
    if full:
        with pytest.raises(QueueFull):
            limiter.require_room("hgmo", standing)
    else:
        limiter.require_room("hgmo", standing)


def test_unlimited_clients_and_our_own_work_are_not_counted() -> None:
    engine = MemoryEngine()
    limiter = Limiter(limits=LIMITS, counters=engine)
    for client, limited in (("token:root", False), ("", True)):
        admission = limiter.admission(client, "hgmo", limited=limited)
        for _ in range(9):
            assert refusal(admission.lookup) is None
            assert refusal(admission.task, Standing(open_tasks=9, waiting=0)) is None
    full = Standing(open_tasks=9, waiting=20)
    admission = limiter.admission("token:root", "hgmo", limited=False)
    assert isinstance(refusal(admission.task, full), QueueFull)


def test_a_client_is_logged_once_a_minute() -> None:
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine(), now=Clock())
    with capture_logs() as lines:
        for client in ("a", "b"):
            for _ in range(9):
                refusal(limiter.count_lookup, client)
    logged = [(line["event"], line["client"], line["code"]) for line in lines]
    assert logged == [("limit.reached", each, "too_many_lookups") for each in ("a", "b")]


def test_a_queue_that_batches_of_clients_have_filled_has_room_for_hooks_and_polls() -> None:
    limiter = Limiter(limits=LIMITS, counters=MemoryEngine())
    batch = limiter.admission("prewarm:a", "hgmo", limited=True)
    hook = limiter.admission("hook:b", "hgmo", limited=False)

    def waiting(count: int) -> Standing:
        return Standing(open_tasks=0, waiting=count)

    assert refusal(batch.deferred_task, waiting(4)) is None
    assert isinstance(refusal(batch.deferred_task, waiting(5)), QueueFull)
    assert refusal(hook.deferred_task, waiting(9)) is None
    assert isinstance(refusal(hook.deferred_task, waiting(10)), QueueFull)
