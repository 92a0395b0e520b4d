"""The contract of ``ports.seats.Seats``, kept within one process and by NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest

from archiver.jetstream.seats import JetStreamSeats
from archiver.ports.seats import Seats
from archiver.runtime.local_seats import LocalSeats
from tests.parts.fleet import HUNG_AFTER_S, Fleet

NUMBERS = {"forge": 3, "team": 1}

Processes = tuple[Seats, Seats]
OpenSeats = Callable[[], AbstractAsyncContextManager[Processes]]


@pytest.fixture(params=("local", "jetstream"))
def open_seats(request: pytest.FixtureRequest) -> OpenSeats:
    """Open the seats as two processes see them. Within one process, both are the same."""
    if request.param == "jetstream":
        fleet: Fleet = request.getfixturevalue("fleet")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Processes]:
        if request.param == "local":
            seats = LocalSeats(NUMBERS)
            yield seats, seats
        else:
            async with fleet.connection() as one, fleet.connection() as two:
                yield (
                    JetStreamSeats(connection=one, numbers=NUMBERS),
                    JetStreamSeats(connection=two, numbers=NUMBERS),
                )

    return opened


def play(open_seats: OpenSeats, scenario: Callable[[Processes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HUNG_AFTER_S), open_seats() as processes:
            await scenario(processes)

    asyncio.run(run())


async def hold_all(seats: Seats, source: str) -> None:
    """Hold all seats of *source* at once. None may be left over from before."""
    async with AsyncExitStack() as stack:
        for _ in range(NUMBERS[source]):
            await stack.enter_async_context(seats.take(source))


class Holding:
    """A task that holds a seat until it is cancelled. ``holds`` is set when it does."""

    def __init__(self, seats: Seats, source: str) -> None:
        self.holds = asyncio.Event()
        self.task = asyncio.create_task(self._hold(seats, source))

    async def _hold(self, seats: Seats, source: str) -> None:
        async with seats.take(source):
            self.holds.set()
            await asyncio.Event().wait()

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


def test_no_more_than_its_number_of_fetches_hold_seats_of_a_source(open_seats: OpenSeats) -> None:
    async def scenario(processes: Processes) -> None:
        holders, most = 0, 0

        async def fetch(seats: Seats) -> None:
            nonlocal holders, most
            async with seats.take("forge"):
                holders += 1
                most = max(most, holders)
                await asyncio.sleep(0.01)
                holders -= 1

        await asyncio.gather(*(fetch(processes[number % 2]) for number in range(20)))
        assert (most, holders) == (NUMBERS["forge"], 0)

    play(open_seats, scenario)


def test_a_waiting_fetch_gets_the_seat_that_another_process_gives_back(
    open_seats: OpenSeats,
) -> None:
    async def scenario(processes: Processes) -> None:
        first = Holding(processes[0], "team")
        await first.holds.wait()
        second = Holding(processes[1], "team")
        await asyncio.sleep(0.05)
        assert not second.holds.is_set()
        await first.cancel()
        await second.holds.wait()
        await second.cancel()

    play(open_seats, scenario)


def test_cancelled_fetches_leave_no_seat_taken(open_seats: OpenSeats) -> None:
    async def scenario(processes: Processes) -> None:
        async with asyncio.TaskGroup() as group:
            for delay_ms in range(20):
                holding = Holding(processes[delay_ms % 2], "forge")
                await asyncio.sleep(delay_ms / 1000)
                group.create_task(holding.cancel())
        await hold_all(processes[0], "forge")
        await hold_all(processes[1], "forge")

    play(open_seats, scenario)


@pytest.mark.parametrize("process", (0, 1))
def test_a_cancelled_wait_leaves_its_turn_to_the_next(open_seats: OpenSeats, process: int) -> None:
    async def scenario(processes: Processes) -> None:
        holder = Holding(processes[0], "team")
        await holder.holds.wait()
        cancelled = Holding(processes[0], "team")
        await asyncio.sleep(0.01)
        following = Holding(processes[process], "team")
        await asyncio.sleep(0.01)
        await cancelled.cancel()
        await holder.cancel()
        await following.holds.wait()
        await following.cancel()
        await hold_all(processes[1], "team")

    play(open_seats, scenario)


def test_fetches_of_a_process_get_seats_in_their_order(open_seats: OpenSeats) -> None:
    async def scenario(processes: Processes) -> None:
        held: list[int] = []

        async def fetch(number: int) -> None:
            async with processes[0].take("team"):
                held.append(number)

        await asyncio.gather(*map(fetch, range(5)))
        assert held == [*range(5)]

    play(open_seats, scenario)


def test_sources_share_no_seats(open_seats: OpenSeats) -> None:
    async def scenario(processes: Processes) -> None:
        async with processes[0].take("team"), processes[1].take("forge"):
            assert NUMBERS["team"] == 1

    play(open_seats, scenario)


def test_an_error_in_the_block_is_raised_as_it_is(open_seats: OpenSeats) -> None:
    """A timeout of the block is not that of the seat."""

    async def scenario(processes: Processes) -> None:
        for error in (TimeoutError("of the block"), ValueError("of the block")):
            with pytest.raises(type(error), match="of the block"):
                async with processes[0].take("team"):
                    raise error
        await hold_all(processes[1], "team")

    play(open_seats, scenario)
