"""Bounds the memory for the bodies of requests that a process receives at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.errors import TooManyWaiters

BUDGET_BYTES = 64 << 20

RETRY_AFTER = timedelta(seconds=5)


class BodyBudget:
    """Grants bytes to requests, and takes them back when they end."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._left_bytes = budget_bytes

    @contextmanager
    def grant(self) -> Iterator["Grant"]:
        grant = Grant(self)
        try:
            yield grant
        finally:
            self._left_bytes += grant.size_bytes

    def take(self, size_bytes: int) -> None:
        """Raises TooManyWaiters if the process has no room for so many bytes more."""
        if size_bytes > self._left_bytes:
            raise TooManyWaiters(
                "too many requests are being received at the moment", retry_after=RETRY_AFTER
            )
        self._left_bytes -= size_bytes


class Grant:
    """The bytes that one request holds."""

    def __init__(self, budget: BodyBudget) -> None:
        self.size_bytes = 0
        self._budget = budget

    def extend(self, size_bytes: int) -> None:
        """Raises TooManyWaiters."""
        self._budget.take(size_bytes)
        self.size_bytes += size_bytes
