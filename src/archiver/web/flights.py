"""Requests that are being handled, so that identical ones can wait for the first one's reply."""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Flight:
    """A request that is being handled. ``followers`` counts the identical ones that wait for it."""

    def __init__(self) -> None:
        self.followers = 0
        self._landed = asyncio.Event()

    def land(self) -> None:
        """Let the followers go on."""
        self._landed.set()

    async def follow(self) -> None:
        """Wait until the flight has landed."""
        self.followers += 1
        await self._landed.wait()


class Flights(Generic[K]):
    """The first request for each key. Unlike ``SingleFlight``, it may land before its reply."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight] = {}

    def get(self, key: K) -> Flight | None:
        return self._flights.get(key)

    @contextmanager
    def begin(self, key: K) -> Iterator[Flight]:
        """Yield a flight that lands with the block at the latest.

        It has no followers if another request for *key* is being handled.
        """
        flight = Flight()
        self._flights.setdefault(key, flight)
        try:
            yield flight
        finally:
            self.land(key, flight)

    def land(self, key: K, flight: Flight) -> None:
        """Let the followers of *flight* go on; it gets no more of them."""
        flight.land()
        if self._flights.get(key) is flight:
            del self._flights[key]
