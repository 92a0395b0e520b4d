"""Lookups wait in a line, in which clients take turns."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.errors import ArchiverError, SourceTimeout, TooManyLookups, TooManyWaiters
from archiver.lookup_line import AdmitLookup, LookupCause, LookupLimits, LookupLine, admit_freely
from archiver.model import Node
from archiver.ports.index import Resolved

FOUND = Resolved(node=Node("0" * 40), at=datetime.now(UTC))


class Host:
    """A host that answers one lookup after the other. ``asked`` are all lookups in their order.

    The first letter of a lookup is its client.
    """

    def __init__(self, *, at_a_time: int = 1, **limits: Any) -> None:  # noqa: ANN401
        self.line = LookupLine(at_a_time=at_a_time, limits=LookupLimits(**limits))
        self.asked: list[str] = []
        self._answers: dict[str, asyncio.Event] = {}

    async def join(self, *keys: str, admit: AdmitLookup = admit_freely) -> list["Lookup"]:
        """Return the lookups of *keys*, which wait or run."""
        lookups = [self._join(key, admit) for key in keys]
        await settle()
        return lookups

    async def answer(self) -> None:
        next(iter(self._answers.values())).set()
        await settle()

    async def answer_all(self) -> list[str]:
        while self._answers:
            await self.answer()
        return self.asked

    def _join(self, key: str, admit: AdmitLookup) -> "Lookup":
        async def look_up() -> Resolved:
            self.asked.append(key)
            self._answers[key] = asyncio.Event()
            try:
                await self._answers[key].wait()
            finally:
                del self._answers[key]
            return FOUND

        joined = self.line.join(key, LookupCause(key[0], admit), look_up)
        return asyncio.ensure_future(joined())


Lookup = asyncio.Future[Resolved]


async def settle() -> None:
    """Let all tasks of the loop run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_clients_take_turns_and_those_of_one_client_come_in_order() -> None:
    async def scenario() -> None:
        host = Host()
        await host.join("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        assert await host.answer_all() == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]

    run(scenario())


def test_a_newcomer_waits_for_one_lookup_of_each_other_client() -> None:
    async def scenario() -> None:
        host = Host(at_a_time=2)
        flood = [f"{client}{number}" for number in range(14) for client in "abcdefgh"]
        await host.join(*flood)
        for _ in range(20):
            await host.answer()
        before = len(host.asked)
        await host.join("z")
        asked = await host.answer_all()
        assert len(asked) == len(flood) + 1
        assert asked.index("z") - before <= 8

    run(scenario())


def test_so_many_run_at_a_time() -> None:
    async def scenario() -> None:
        host = Host(at_a_time=3)
        await host.join("a1", "a2", "a3", "a4", "b1")
        assert host.asked == ["a1", "a2", "a3"]
        await host.answer()
        assert host.asked == ["a1", "a2", "a3", "a4"]

    run(scenario())


def test_a_client_has_so_many_places() -> None:
    async def scenario() -> None:
        host = Host(per_client=2)
        await host.join("a1", "a2")
        with pytest.raises(TooManyWaiters) as refused:
            await host.join("a3")
        assert refused.value.retry_after
        await host.join("b1")
        await host.answer()
        await host.join("a3")
        assert await host.answer_all() == ["a1", "a2", "b1", "a3"]

    run(scenario())


def test_a_full_line_gives_the_newest_place_of_the_client_with_most_to_one_with_fewer() -> None:
    async def scenario() -> None:
        host = Host(in_all=6)
        *_, lost, _, _ = await host.join("a1", "a2", "a3", "a4", "b1", "b2")
        await host.join("c1")
        assert isinstance(lost.exception(), TooManyWaiters)
        assert await host.answer_all() == ["a1", "a2", "b1", "c1", "a3", "b2"]

    run(scenario())


@pytest.mark.parametrize("client", "bc")
def test_a_full_line_refuses_a_client_that_would_have_most(client: str) -> None:
    async def scenario() -> None:
        host = Host(in_all=5)
        lookups = await host.join("a1", "b1", "b2", "c1", "d1")
        with pytest.raises(TooManyWaiters):
            await host.join(f"{client}9")
        await host.answer_all()
        assert [lookup.result() for lookup in lookups] == [FOUND] * 5

    run(scenario())


def test_of_clients_with_equally_many_the_one_whose_turn_comes_last_loses_a_place() -> None:
    async def scenario() -> None:
        host = Host(in_all=5)
        *_, lost = await host.join("a1", "b1", "b2", "c1", "c2")
        await host.join("d1")
        assert isinstance(lost.exception(), TooManyWaiters)
        assert await host.answer_all() == ["a1", "b1", "c1", "d1", "b2"]

    run(scenario())


def test_a_running_lookup_loses_no_place() -> None:
    async def scenario() -> None:
        host = Host(at_a_time=2, in_all=2)
        await host.join("a1", "a2")
        with pytest.raises(TooManyWaiters):
            await host.join("b1")
        assert await host.answer_all() == ["a1", "a2"]

    run(scenario())


def test_a_cancelled_lookup_leaves_the_line() -> None:
    async def scenario() -> None:
        host = Host(in_all=3)
        running, waiting, _ = await host.join("a1", "a2", "b1")
        waiting.cancel()
        await settle()
        await host.join("c1")
        running.cancel()
        await settle()
        assert await host.answer_all() == ["a1", "b1", "c1"]

    run(scenario())


@pytest.mark.parametrize("first", (0, 1))
def test_a_turn_that_comes_together_with_a_cancellation_goes_to_the_next(first: int) -> None:
    async def scenario() -> None:
        host = Host()
        *cancelled, _ = await host.join("a1", "a2", "b1")
        cancelled[first].cancel()
        cancelled[1 - first].cancel()
        await settle()
        assert await host.answer_all() == ["a1", "b1"]

    run(scenario())


def test_a_place_may_be_lost_together_with_a_cancellation() -> None:
    async def scenario() -> None:
        host = Host(in_all=3)
        *_, waiting = await host.join("a1", "a2", "a3")
        waiting.cancel()
        await host.join("b1")
        assert waiting.cancelled()
        assert await host.answer_all() == ["a1", "a2", "b1"]

    run(scenario())


def test_a_lookup_whose_turn_does_not_come_in_time_leaves_the_line() -> None:
    async def scenario() -> None:
        host = Host(in_all=2, deadline=timedelta(0))
        running, late = await host.join("a1", "a2")
        with pytest.raises(SourceTimeout):
            await late
        await host.join("a3")  # there is room
        await host.answer_all()
        assert running.result() == FOUND
        assert host.asked == ["a1"]

    run(scenario())


def test_a_lookup_that_is_not_admitted_leaves_the_line() -> None:
    async def refuse() -> None:
        raise TooManyLookups("no", quota=0, retry_after=timedelta(0))

    async def scenario() -> None:
        host = Host(in_all=3)
        await host.join("a1")
        first, second = await host.join("b1", "b2", admit=refuse)
        errors: list[type[ArchiverError]] = [TooManyLookups, TooManyLookups]
        assert [type(each.exception()) for each in (first, second)] == errors
        await host.join("c1", "d1")
        assert await host.answer_all() == ["a1", "c1", "d1"]

    run(scenario())


def test_a_lookup_is_admitted_while_it_waits() -> None:
    async def scenario() -> None:
        host = Host()
        admitted = asyncio.Event()

        async def admit() -> None:
            admitted.set()

        await host.join("a1")
        await host.join("b1", admit=admit)
        assert admitted.is_set()
        assert host.asked == ["a1"]
        await host.answer_all()

    run(scenario())


def test_a_shared_lookup_waits_for_the_client_whose_turn_comes_sooner() -> None:
    async def scenario() -> None:
        host = Host()
        await host.join("a1", "a2", "a3", "a4", "b1")
        host.line.share("a4", "c")
        host.line.share("a2", "b")  # of b, it would come later
        host.line.share("a1", "c")  # runs already
        assert await host.answer_all() == ["a1", "a2", "b1", "a4", "a3"]
        host.line.share("a1", "c")  # has ended

    run(scenario())
