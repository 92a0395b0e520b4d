"""Seats of one process, for tools that work without an engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


class LocalSeats:
    """Implements ``ports.seats.Seats`` for one process. *numbers* are those of each source."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._free = {source: asyncio.Semaphore(number) for source, number in numbers.items()}

    @asynccontextmanager
    async def take(self, source: str) -> AsyncIterator[None]:
        async with self._free[source]:
            yield
