"""The breakers of the fleet on a real server: hostile entries, lost events, no engine."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.breaker import CLEAN, NAMED_PAUSE_MAX, Breaker, BreakerName, BreakerPolicy
from archiver.errors import SourcePaused, SourceTimeout
from archiver.guard import Guard
from archiver.jetstream.breakers import JetStreamBreakers
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import BREAKER
from archiver.jetstream.records import decode_breaker, decode_breaker_event
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.runtime.tasks import in_background
from tests.parts.fleet import HUNG_AFTER_S, Fleet, delete

HGMO = BreakerName("source", "hgmo")
KEY = "breaker.source.hgmo"
FAILED = Breaker(failures=1, code="source_timeout")


def breakers(connection: Connection) -> JetStreamBreakers:
    return JetStreamBreakers(connection=connection, names=(HGMO,))


def play(fleet: Fleet, scenario: Callable[[Connection], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HUNG_AFTER_S), fleet.connection() as connection:
            await scenario(connection)

    asyncio.run(run())


def one_more(breaker: Breaker) -> Breaker:
    return replace(breaker, failures=breaker.failures + 1, code="source_timeout")


def opened(breaker: Breaker) -> Breaker:
    return replace(breaker, until=datetime.now(UTC) + timedelta(minutes=5))


async def known(process: JetStreamBreakers, value: Breaker) -> None:
    while process.known(HGMO) != value:
        await asyncio.sleep(0.01)


GARBAGE = (
    b"not JSON",
    b"[]",
    b'{"failures": -1}',
    b'{"failures": 1e300}',
    b'{"failures": %s}' % (b"9" * 5000),
    b'{"openings": 2000000}',
    b'{"code": "two words"}',
    b'{"code": "%s"}' % (b"x" * 1000),
    b'{"until": "2199-01-01T00:00:00Z"}',
    b'{"until": "2025-01-01T00:00:00"}',
    b'{"until": "2025-01-01T00:00:00Z", "probe": "x", "probe_until": "2199-01-01T00:00:00Z"}',
    b'{"until": "2025-01-01T00:00:00Z", "probe": "%s"}' % (b"x" * 1000),
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_entry_that_no_process_writes_counts_as_closed(fleet: Fleet, garbage: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        await connection.kv.put(STATES, KEY, garbage)
        process = breakers(connection)
        async with in_background(process.keep_current()):
            assert (await process.change(HGMO, one_more)).after == FAILED
        entry = await connection.kv.get(STATES, KEY)
        assert entry
        assert decode_breaker(entry.value)

    assert decode_breaker(garbage) is None
    play(fleet, scenario)


@pytest.mark.parametrize(
    "event",
    (
        b"not JSON",
        b'{"key": "breaker.source.other", "record": {"failures": 3}, "revision": 9}',
        *(b'{"key": "%s", "record": %s, "revision": 9}' % (KEY.encode(), g) for g in GARBAGE),
    ),
)
def test_a_hostile_event_changes_nothing(fleet: Fleet, event: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        process = breakers(connection)
        await connection.feed.publish(BREAKER, "0" * 64, event)
        await process.change(HGMO, one_more)
        assert process.known(HGMO) == FAILED

    with capture_logs():
        play(fleet, scenario)


def test_an_event_with_a_false_revision_is_corrected_by_the_entry(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        process = breakers(connection)
        event = b'{"key": "%s", "record": {"failures": 7}, "revision": 4503599627370496}'
        assert decode_breaker_event(event % KEY.encode())
        token = hashlib.sha256(KEY.encode()).hexdigest()
        await connection.feed.publish(BREAKER, token, event % KEY.encode())
        await known(process, Breaker(failures=7))
        async with in_background(process.keep_current()):
            await known(process, CLEAN)

    play(fleet, scenario)


def test_a_process_that_starts_later_knows_what_was_before(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        after = (await breakers(connection).change(HGMO, opened)).after
        async with fleet.connection() as other:
            late = breakers(other)
            async with in_background(late.keep_current()):
                await known(late, after)

    play(fleet, scenario)


def test_a_process_that_missed_events_reads_the_entries(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        async with fleet.connection() as other:
            deaf = breakers(other)
            await other.link.subscriptions.unsubscribe(f"{fleet.namespace}.feed.*.*")
            async with in_background(deaf.keep_current()):
                after = (await breakers(connection).change(HGMO, opened)).after
                other.feed.gaps.notify()
                await known(deaf, after)

    play(fleet, scenario)


def test_after_the_engine_lost_the_entry_changes_begin_again(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        process = breakers(connection)
        await process.change(HGMO, opened)
        await delete(connection, STATES, KEY)
        assert (await process.change(HGMO, lambda _: FAILED)).before == CLEAN
        assert process.known(HGMO) == FAILED

    play(fleet, scenario)


def test_without_the_engine_each_process_goes_on_with_what_it_knows(fleet: Fleet) -> None:
    async def scenario(_connection: Connection) -> None:
        async with fleet.connection() as closed:
            process = breakers(closed)
            await process.change(HGMO, one_more)
        guard = Guard(breakers=process, policies={HGMO: BreakerPolicy(failures=3)})
        for _ in range(2):
            with pytest.raises(SourceTimeout):
                async with guard.use("hgmo"):
                    raise SourceTimeout("late")
        with pytest.raises(SourcePaused):
            async with guard.use("hgmo"):
                raise AssertionError
        async with fleet.connection() as other:
            late = breakers(other)
            async with in_background(late.keep_current()):
                await known(late, FAILED)

    play(fleet, scenario)


def test_a_pause_that_is_longer_than_any_is_not_readable() -> None:
    until = datetime.now(UTC) + NAMED_PAUSE_MAX + timedelta(minutes=5)
    assert decode_breaker(b'{"until": "%s"}' % until.isoformat().encode()) is None


def test_the_longest_pause_is_readable(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        until = datetime.now(UTC) + NAMED_PAUSE_MAX
        await breakers(connection).change(HGMO, lambda b: replace(b, until=until))
        entry = await connection.kv.get(STATES, KEY)
        assert entry
        assert decode_breaker(entry.value)

    play(fleet, scenario)


def test_breakers_are_no_tasks(fleet: Fleet) -> None:
    async def scenario(connection: Connection) -> None:
        await breakers(connection).change(HGMO, opened)
        tasks = JetStreamTaskList(connection=connection)
        assert [listed async for listed in tasks.recorded()] == []

    play(fleet, scenario)
