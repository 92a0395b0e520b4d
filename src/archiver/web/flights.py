"""Requests that are being handled, so that identical ones can wait for the first one's reply."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Flight(Generic[K]):
    """A request that is being handled, until its block ends or it lands before.

    ``followers`` counts the identical requests that wait for it.
    """

    def __init__(self, key: K, flights: "dict[K, Flight[K]]") -> None:
        self._key = key
        self._flights = flights
        self._landed = asyncio.Event()
        self.followers = 0

    def __enter__(self) -> "Flight[K]":
        self._flights.setdefault(self._key, self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.land()

    def land(self) -> None:
        """Let the followers go on. No others will follow."""
        self._landed.set()
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    async def follow(self) -> None:
        """Return when the flight has landed."""
        self.followers += 1
        await self._landed.wait()


class Flights(Generic[K]):
    """The first request for each key. Unlike ``SingleFlight``, it may land before its reply."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K]] = {}

    def get(self, key: K) -> Flight[K] | None:
        """Return the flight to follow for *key*, if there is one."""
        return self._flights.get(key)

    def begin(self, key: K) -> Flight[K]:
        """Return a flight. It gets no followers while another one has the same key."""
        return Flight(key, self._flights)
