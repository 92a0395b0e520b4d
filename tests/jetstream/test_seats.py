"""Seats of the fleet on a real server: leases, lost entries and hostile ones."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.records import decode_seats
from archiver.jetstream.seats import JetStreamSeats
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_list import JetStreamTaskList
from tests.contracts.test_seats import Holding
from tests.parts.fleet import HUNG_AFTER_S, Fleet, delete

NUMBERS = {"forge": 2, "team": 1}
KEY = "seats.team"
SHORT = timedelta(seconds=0.6)
AT_ONCE = timedelta(0)


def seats(connection: Connection, *, lease: timedelta = timedelta(seconds=6)) -> JetStreamSeats:
    return JetStreamSeats(
        connection=connection, numbers=NUMBERS, lease=lease, clocks_differ=AT_ONCE
    )


def play(fleet: Fleet, scenario: Callable[[Connection], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            await scenario(connection)

    asyncio.run(run())


async def holders(connection: Connection) -> dict[str, datetime]:
    entry = await connection.kv.get(STATES, KEY)
    record = decode_seats(entry.value) if entry else None
    return dict(record.holders) if record else {}


async def changed(connection: Connection, before: dict[str, datetime]) -> dict[str, datetime]:
    """Wait until the holders differ from *before*, and return them."""
    while (now := await holders(connection)) == before:
        await asyncio.sleep(0.02)
    return now


def test_the_seat_of_a_process_that_died_is_free_after_its_lease(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        async with fleet.connection() as dying:
            dead = Holding(seats(dying, lease=SHORT), "team")
            await dead.holds.wait()
        assert len(await holders(connection)) == 1
        async with seats(connection).take("team"):
            [until] = (await holders(connection)).values()
            assert until > datetime.now(UTC)
        with pytest.raises(EngineUnavailable):
            await dead.task

    play(fleet, scenario)


def test_a_seat_is_renewed_while_it_is_held(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        async with seats(connection).take("team"):
            before = await holders(connection)
            after = await changed(connection, before)
            assert after.keys() == before.keys()
            assert [*after.values()] > [*before.values()]
        assert await holders(connection) == {}

    play(fleet, scenario)


def test_a_holder_enters_itself_again_after_the_engine_lost_the_entry(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        async with seats(connection).take("team"):
            before = await holders(connection)
            await delete(connection, STATES, KEY)
            assert (await changed(connection, {})).keys() == before.keys()

    play(fleet, scenario)


def test_a_fetch_ends_when_its_seat_was_given_to_another_one(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        loser = Holding(seats(connection), "team")
        await loser.holds.wait()
        await delete(connection, STATES, KEY)
        async with seats(connection).take("team"):
            with pytest.raises(EngineUnavailable):
                await loser.task
            assert len(await holders(connection)) == 1

    play(fleet, scenario)


def test_without_the_engine_no_seat_is_taken(fleet: Fleet) -> None:
    async def scenario(_connection: Connection) -> None:
        async with fleet.connection() as closed:
            taken = seats(closed)
        with pytest.raises(EngineUnavailable):
            await Holding(taken, "team").task

    play(fleet, scenario)


@pytest.mark.parametrize(
    "garbage",
    (
        b"not JSON",
        b'{"holders": ["x"]}',
        b'{"holders": {"x": "never"}}',
        b'{"holders": {"x": "2199-01-01T00:00:00Z"}}',
        b'{"holders": {"%s": "2020-01-01T00:00:00Z"}}' % (b"x" * 1000),
    ),
)
def test_an_entry_that_no_process_writes_holds_no_seat(fleet: Fleet, garbage: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        await connection.kv.put(STATES, KEY, garbage)
        async with seats(connection).take("team"):
            assert len(await holders(connection)) == 1

    assert decode_seats(garbage) is None
    play(fleet, scenario)


def test_seats_are_no_tasks(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        async with seats(connection).take("team"):
            tasks = JetStreamTaskList(connection=connection)
            assert [listed async for listed in tasks.recorded()] == []

    play(fleet, scenario)
