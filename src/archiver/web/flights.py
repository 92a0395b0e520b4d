"""Requests that are being handled, so that identical ones can wait for the first one's reply."""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Flight:
    """A request that is being handled. ``followers`` counts the identical ones that wait for it."""

    def __init__(self) -> None:
        self.landed = asyncio.Event()
        self.followers = 0

    async def follow(self) -> None:
        """Return when the request has been handled."""
        self.followers += 1
        await self.landed.wait()


class Flights(Generic[K]):
    """The first request for each key that is being handled."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight] = {}

    def get(self, key: K) -> Flight | None:
        """Return the flight to follow for *key*, if there is one."""
        return self._flights.get(key)

    @contextmanager
    def begin(self, key: K) -> Iterator[Flight]:
        """Yield a flight that lands when the block ends.

        It has no followers if another flight for *key* has not landed yet.
        """
        flight = Flight()
        self._flights.setdefault(key, flight)
        try:
            yield flight
        finally:
            flight.landed.set()
            if self._flights.get(key) is flight:
                del self._flights[key]
