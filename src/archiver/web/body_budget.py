"""Bounds the memory for the bodies of requests that a process receives at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.errors import TooManyWaiters

BUDGET_BYTES = 64 << 20

SHARES = 4
"""One client holds at most one of so many, so that it does not shut the others out."""

RETRY_AFTER = timedelta(seconds=5)


class BodyBudget:
    """Grants bytes to requests, and takes them back when they end."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left_bytes = budget_bytes
        self._share_bytes = budget_bytes // SHARES
        self._held_bytes: Counter[str] = Counter()

    @contextmanager
    def grant(self, client: str) -> Iterator["Grant"]:
        grant = Grant(self, client)
        try:
            yield grant
        finally:
            self._left_bytes += grant.size_bytes
            self._held_bytes[client] -= grant.size_bytes
            if not self._held_bytes[client]:
                del self._held_bytes[client]

    def take(self, client: str, size_bytes: int) -> None:
        """Raises TooManyWaiters if the process has no room for so many bytes more of *client*."""
        held_bytes = self._held_bytes[client] + size_bytes
        if size_bytes > self._left_bytes or held_bytes > self._share_bytes:
            raise TooManyWaiters(
                "too many requests are being received at the moment", retry_after=RETRY_AFTER
            )
        self._left_bytes -= size_bytes
        self._held_bytes[client] = held_bytes


class Grant:
    """The bytes that one request holds."""

    def __init__(self, budget: BodyBudget, client: str) -> None:
        self.size_bytes = 0
        self._budget = budget
        self._client = client

    def extend(self, size_bytes: int) -> None:
        """Raises TooManyWaiters."""
        self._budget.take(self._client, size_bytes)
        self.size_bytes += size_bytes
