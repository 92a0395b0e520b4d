"""How many requests may wait at a time: in this process, and of one client."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Gauge

from archiver.errors import TooManyWaiters


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How long a request may wait, and how many may at a time, in one process.

    A client is an address, or an IPv6 network of 64 bits. The settings explain the defaults.
    """

    hold_s: float = 8
    waiters: int = 5000
    waiters_per_client: int = 500
    event_streams: int = 2000
    event_streams_per_client: int = 20


class Admission:
    """Admits *total* requests at a time, at most *per_client* of one client.

    ``Retry-After`` of a refusal is a random time of at most *retry_within*.
    """

    def __init__(
        self, *, total: int, per_client: int, retry_within: timedelta, gauge: Gauge
    ) -> None:
        self._total = total
        self._per_client = per_client
        self._retry_within_s = retry_within.total_seconds()
        self._gauge = gauge
        self._admitted = 0
        self._by_client: Counter[str] = Counter()

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Count a request of *client* while the block runs. Raises TooManyWaiters."""
        if self._admitted >= self._total or self._by_client[client] >= self._per_client:
            raise self._refusal()
        self._count(client, 1)
        try:
            yield
        finally:
            self._count(client, -1)

    def _refusal(self) -> TooManyWaiters:
        delay_s = random.uniform(1, max(1, self._retry_within_s))  # noqa: S311 - spreads a crowd
        return TooManyWaiters(
            "too many clients are waiting already", retry_after=timedelta(seconds=delay_s)
        )

    def _count(self, client: str, change: int) -> None:
        self._admitted += change
        self._gauge.inc(change)
        self._by_client[client] += change
        if not self._by_client[client]:
            del self._by_client[client]
