"""How many requests may be held open at a time: in this process, and by one client."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Gauge

from archiver.errors import TooManyWaiters


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How long one request is held open, and how many may be at a time, in one process.

    ``per_client`` is per address, or IPv6 network of 64 bits. The settings say why they are what
    they are.
    """

    hold_s: float = 8
    waiters: int = 5000
    waiters_per_client: int = 500
    event_streams: int = 2000
    event_streams_per_client: int = 20


class Seats:
    """Hands out *total* seats, at most *per_client* to one client.

    Whoever finds none is asked to come back within *patience*, each at another moment.
    """

    def __init__(self, *, total: int, per_client: int, patience: timedelta, taken: Gauge) -> None:
        self._total = total
        self._per_client = per_client
        self._patience_s = patience.total_seconds()
        self._gauge = taken
        self._taken = 0
        self._by_client: Counter[str] = Counter()

    @contextmanager
    def seat(self, client: str) -> Iterator[None]:
        """Hold a seat for *client* while the block runs. Raises TooManyWaiters if there is none."""
        if self._taken >= self._total or self._by_client[client] >= self._per_client:
            raise self._none_left()
        self._count(client, 1)
        try:
            yield
        finally:
            self._count(client, -1)

    def _none_left(self) -> TooManyWaiters:
        delay_s = random.uniform(1, max(1, self._patience_s))  # noqa: S311 - spreads a crowd
        return TooManyWaiters(
            "too many clients wait here already", retry_after=timedelta(seconds=delay_s)
        )

    def _count(self, client: str, change: int) -> None:
        self._taken += change
        self._gauge.inc(change)
        self._by_client[client] += change
        if not self._by_client[client]:
            del self._by_client[client]
