"""The contract of ``ports.breakers.Breakers``, kept in memory and by NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.breaker import CLEAN, Breaker, BreakerName, BreakerPolicy
from archiver.jetstream.breakers import JetStreamBreakers
from archiver.ports.breakers import Breakers, Change
from archiver.runtime.tasks import in_background
from archiver.testing import MemoryBreakers
from tests.parts.fleet import HUNG_AFTER_S, Fleet

HGMO, GIT = BreakerName("source", "hgmo"), BreakerName("source", "git")
EAST = BreakerName("region", "hgmo")
"""Its name is that of a source as well."""

NAMES = (HGMO, GIT, EAST)
POLICY = BreakerPolicy(failures=2)

Processes = tuple[Breakers, Breakers]
OpenBreakers = Callable[[], AbstractAsyncContextManager[Processes]]


@pytest.fixture(params=("memory", "jetstream"))
def open_breakers(request: pytest.FixtureRequest) -> OpenBreakers:
    """Open the breakers as two processes see them. In memory, both are the same."""
    if request.param == "jetstream":
        fleet: Fleet = request.getfixturevalue("fleet")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Processes]:
        if request.param == "memory":
            breakers = MemoryBreakers()
            yield breakers, breakers
            return
        async with fleet.connection() as first, fleet.connection() as second:
            one = JetStreamBreakers(connection=first, names=NAMES)
            two = JetStreamBreakers(connection=second, names=NAMES)
            async with in_background(one.keep_current(), two.keep_current()):
                yield one, two

    return opened


def play(open_breakers: OpenBreakers, scenario: Callable[[Processes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HUNG_AFTER_S), open_breakers() as processes:
            await scenario(processes)

    asyncio.run(run())


def one_more(breaker: Breaker) -> Breaker:
    return replace(breaker, failures=breaker.failures + 1, code="source_timeout")


def opened(breaker: Breaker) -> Breaker:
    return replace(breaker, until=datetime.now(UTC) + timedelta(minutes=5))


async def known(breakers: Breakers, name: BreakerName, value: Breaker) -> None:
    """Wait until this process knows *value*."""
    while breakers.known(name) != value:
        await asyncio.sleep(0.01)


def test_all_breakers_are_closed_at_first(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        assert [processes[0].known(name) for name in NAMES] == [CLEAN] * 3

    play(open_breakers, scenario)


def test_a_change_is_known_here_at_once_and_soon_everywhere(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        change = await processes[0].change(HGMO, opened)
        assert (change.before, change.after.is_closed) == (CLEAN, False)
        assert processes[0].known(HGMO) == change.after
        await known(processes[1], HGMO, change.after)

    play(open_breakers, scenario)


def test_breakers_are_independent(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        after = (await processes[0].change(HGMO, opened)).after
        await known(processes[1], HGMO, after)
        assert [processes[1].known(name) for name in (GIT, EAST)] == [CLEAN] * 2

    play(open_breakers, scenario)


def test_changes_at_the_same_moment_all_count(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        await asyncio.gather(*(processes[n % 2].change(HGMO, one_more) for n in range(8)))
        await asyncio.gather(
            *(known(each, HGMO, Breaker(failures=8, code="source_timeout")) for each in processes)
        )

    play(open_breakers, scenario)


def test_one_process_takes_the_probe(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        past = datetime.now(UTC) - timedelta(seconds=1)
        due = (await processes[0].change(HGMO, lambda b: replace(b, until=past))).after
        await known(processes[1], HGMO, due)

        def take(process: int) -> Awaitable[Change]:
            return processes[process].change(
                HGMO, lambda b: b.with_probe(str(process), datetime.now(UTC), POLICY)
            )

        winners = {change.after.probe for change in await asyncio.gather(take(0), take(1))}
        assert len(winners) == 1

    play(open_breakers, scenario)


def test_a_step_without_an_effect_changes_nothing(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        seen: list[BreakerName] = []
        processes[0].changes.add(seen.append)
        change = await processes[0].change(HGMO, lambda breaker: breaker)
        assert (change, seen) == (Change(before=CLEAN, after=CLEAN), [])

    play(open_breakers, scenario)


def test_each_process_hears_of_changes_after_it_knows_them(open_breakers: OpenBreakers) -> None:
    async def scenario(processes: Processes) -> None:
        seen: asyncio.Queue[tuple[BreakerName, Breaker]] = asyncio.Queue()
        processes[1].changes.add(lambda name: seen.put_nowait((name, processes[1].known(name))))
        after = (await processes[0].change(GIT, opened)).after
        assert await seen.get() == (GIT, after)

    play(open_breakers, scenario)
