"""The line of lookups that wait for a host, in which clients take turns."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from archiver.errors import SourceTimeout, TooManyWaiters
from archiver.ports.index import Resolved
from archiver.runtime.tasks import mark_retrieved

Lookup: TypeAlias = Callable[[], Awaitable[Resolved]]

AdmitLookup: TypeAlias = Callable[[], Awaitable[None]]
"""Returns if a client may cause another lookup, and raises an error if not."""


async def admit_freely() -> None:
    """Admit every lookup."""


class LookupCause(NamedTuple):
    """The client that causes a lookup, and the function that admits it."""

    client: str
    admit: AdmitLookup


class LookupLimits(NamedTuple):
    """How many different lookups may run or wait at one source, in all and of one client.

    One that waits until the *deadline* fails. Clients can invent any number of revs.
    """

    in_all: int = 500
    per_client: int = 16
    deadline: timedelta = timedelta(seconds=10)


@dataclass(slots=True, eq=False)
class _Place:
    """The place of a lookup. ``turn`` is done when the turn comes, or when the place is lost."""

    key: Hashable
    client: str
    runs: bool = False
    turn: asyncio.Future[None] = field(default_factory=asyncio.Future)


class LookupLine:
    """Runs lookups at one source, so many *at_a_time*.

    Clients with waiting lookups take turns; those of one client wait in the order of arrival. So a
    lookup waits for at most one of each other client, and for those of its own.
    """

    def __init__(self, *, at_a_time: int, limits: LookupLimits) -> None:
        self._free = at_a_time
        self._limits = limits
        self._places: dict[Hashable, _Place] = {}
        self._waiting: dict[str, deque[_Place]] = {}
        """The waiting places of each client. The client whose turn comes next is the first."""

    def join(self, key: Hashable, cause: LookupCause, lookup: Lookup) -> Lookup:
        """Return *lookup*, which has a place from now on, and waits for its turn when called.

        No other lookup with this *key* may have a place. Raises TooManyWaiters. The returned
        function raises it if another client takes the place, and SourceTimeout.
        """
        place = self._enter(key, cause.client)

        async def in_turn() -> Resolved:
            try:
                await cause.admit()
                await self._wait(place)
                return await lookup()
            finally:
                self._leave(place)

        return in_turn

    def share(self, key: Hashable, client: str) -> None:
        """Let the waiting lookup with this *key* be one of *client*, if its turn comes sooner."""
        place = self._places.get(key)
        if place is None or place.runs:
            return
        if len(self._waiting.get(client, ())) < self._waiting[place.client].index(place):
            self._remove(place)
            self._append(place, client)

    def _enter(self, key: Hashable, client: str) -> _Place:
        own = sum(place.client == client for place in self._places.values())
        if own >= self._limits.per_client:
            raise _refusal()
        if len(self._places) >= self._limits.in_all:
            self._make_room(client)
        place = self._places[key] = _Place(key, client)
        self._append(place, client)
        self._start_next()
        return place

    def _make_room(self, client: str) -> None:
        """Remove the newest place of the client with most waiting ones.

        Raises TooManyWaiters if *client* would then have as many: clients would only take the
        places of each other.
        """
        last_first = reversed(self._waiting.values())  # of equals, the one whose turn comes last
        most = max(last_first, key=len, default=deque[_Place]())
        if len(self._waiting.get(client, ())) + 1 >= len(most):
            raise _refusal()
        lost = most[-1]
        self._leave(lost)
        if not lost.turn.cancelled():
            lost.turn.set_exception(_refusal())
            mark_retrieved(lost.turn)  # its lookup may not have been admitted

    async def _wait(self, place: _Place) -> None:
        try:
            async with asyncio.timeout(self._limits.deadline.total_seconds()):
                await place.turn
        except TimeoutError as exc:
            raise SourceTimeout("the host took too long for the lookups before this one") from exc

    def _leave(self, place: _Place) -> None:
        if self._places.get(place.key) is not place:
            return  # another client has taken its place
        del self._places[place.key]
        if place.runs:
            self._free += 1
            self._start_next()
        else:
            self._remove(place)

    def _start_next(self) -> None:
        while self._waiting and self._free:
            place = next(iter(self._waiting.values()))[0]
            self._remove(place)
            if others := self._waiting.pop(place.client, None):
                self._waiting[place.client] = others  # last: each other client comes first
            self._free -= 1
            place.runs = True
            if not place.turn.done():  # a cancelled lookup leaves in a moment
                place.turn.set_result(None)

    def _append(self, place: _Place, client: str) -> None:
        place.client = client
        self._waiting.setdefault(client, deque()).append(place)

    def _remove(self, place: _Place) -> None:
        self._waiting[place.client].remove(place)
        if not self._waiting[place.client]:
            del self._waiting[place.client]


def _refusal() -> TooManyWaiters:
    message = "too many lookups wait for the host"
    return TooManyWaiters(message, retry_after=timedelta(seconds=5))
