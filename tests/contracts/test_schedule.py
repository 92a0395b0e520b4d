"""The contract of ``ports.schedule.Schedule``, kept by the fake and by NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from archiver.jetstream.schedule import JetStreamSchedule
from archiver.ports.schedule import Schedule, Turn
from archiver.testing import MemorySchedule
from tests.parts.fleet import Fleet

OpenSchedule = Callable[[], AbstractAsyncContextManager[Schedule]]
HOUR = timedelta(hours=1)


@pytest.fixture(params=("memory", "jetstream"))
def open_schedule(request: pytest.FixtureRequest) -> OpenSchedule:
    if request.param == "jetstream":
        fleet: Fleet = request.getfixturevalue("fleet")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Schedule]:
        if request.param == "memory":
            yield MemorySchedule()
        else:
            async with fleet.connection() as connection:
                yield JetStreamSchedule(connection=connection)

    return opened


def play(open_schedule: OpenSchedule, scenario: Callable[[Schedule], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_schedule() as schedule:
            await scenario(schedule)

    asyncio.run(run())


def later(delay: timedelta = HOUR) -> datetime:
    return datetime.now(UTC) + delay


def test_one_of_many_processes_takes_the_turn(open_schedule: OpenSchedule) -> None:
    async def scenario(schedule: Schedule) -> None:
        begun = await asyncio.gather(*(schedule.begin("dust", until=later()) for _ in range(8)))
        assert sum(isinstance(turn, Turn) for turn in begun) == 1
        assert await schedule.begin("dust", until=later()) is None
        assert await schedule.begin("polish", until=later())

    play(open_schedule, scenario)


def test_the_time_at_which_work_is_due_is_known_once_it_was_done(
    open_schedule: OpenSchedule,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        assert await schedule.next_due("dust") is None
        turn = await schedule.begin("dust", until=later())
        assert turn
        assert await schedule.postpone(turn, until=(due_at := later()))
        assert await schedule.next_due("dust") == due_at

    play(open_schedule, scenario)


def test_work_is_due_again_at_the_time_to_which_it_was_postponed(
    open_schedule: OpenSchedule,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        turn = await schedule.begin("dust", until=later())
        assert turn
        kept = await schedule.postpone(turn, until=later())
        assert kept
        assert await schedule.begin("dust", until=later()) is None
        assert await schedule.postpone(kept, until=later(-HOUR))
        assert await schedule.begin("dust", until=later())

    play(open_schedule, scenario)


def test_a_turn_that_ran_out_and_was_taken_cannot_be_postponed(
    open_schedule: OpenSchedule,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        slow = await schedule.begin("dust", until=later(-HOUR))
        assert slow
        quick = await schedule.begin("dust", until=later())
        assert quick
        assert await schedule.postpone(slow, until=later(-HOUR)) is None
        assert await schedule.begin("dust", until=later()) is None
        assert await schedule.postpone(quick, until=later())

    play(open_schedule, scenario)
