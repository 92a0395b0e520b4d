"""The requests of a process that wait for an archive or follow its task, and their limits."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Gauge

from archiver.errors import TooManyWaiters
from archiver.model import Archive
from archiver.service import Archiver
from archiver.telemetry import METRICS
from archiver.web.waiting.task_watch import TaskWatch

POLL_INTERVAL = timedelta(seconds=5)
"""Notifications are sent once and may be lost, so the task is also read at this interval."""


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


class Waiters:
    """Admits waiting requests and event streams to the watches of their archives.

    An archive has one watch, for as long as a client needs it.
    """

    def __init__(
        self,
        *,
        archiver: Archiver,
        limits: WaitLimits,
        group: asyncio.TaskGroup,
        poll_interval: timedelta,
    ) -> None:
        self._archiver = archiver
        self._group = group
        self._poll_interval = poll_interval
        self._watches: dict[str, TaskWatch] = {}
        self._closing = False
        self._requests = _Admission(
            limits.waiters, limits.waiters_per_client, limits.hold_s, METRICS.waiters
        )
        self._streams = _Admission(
            limits.event_streams,
            limits.event_streams_per_client,
            limits.hold_s,
            METRICS.event_streams,
        )

    @contextmanager
    def watch(self, archive: Archive, client: str, *, stream: bool = False) -> Iterator[TaskWatch]:
        """Yield the watch of *archive*. Raises TooManyWaiters."""
        with (self._streams if stream else self._requests).admit(client):
            watch = self._watches.get(archive.key_hash)
            if watch is None or watch.ended:
                watch = self._start(archive)
            watch.users += 1
            try:
                yield watch
            finally:
                watch.users -= 1
                if not watch.users:
                    self._stop(archive, watch)

    def close(self) -> None:
        """End all waits, and the waits that start later: the process is about to end."""
        self._closing = True
        for watch in self._watches.values():
            watch.close()

    def _start(self, archive: Archive) -> TaskWatch:
        watch = TaskWatch(
            archiver=self._archiver, archive=archive, poll_interval=self._poll_interval
        )
        watch.following = self._group.create_task(watch.follow())
        watch.closing = self._closing
        self._watches[archive.key_hash] = watch
        return watch

    def _stop(self, archive: Archive, watch: TaskWatch) -> None:
        watch.following.cancel()
        if self._watches.get(archive.key_hash) is watch:
            del self._watches[archive.key_hash]


@asynccontextmanager
async def open_waiters(
    archiver: Archiver, limits: WaitLimits, *, poll_interval: timedelta = POLL_INTERVAL
) -> AsyncIterator[Waiters]:
    """Yield waiters that end with the block."""
    async with asyncio.TaskGroup() as group:
        waiters = Waiters(
            archiver=archiver, limits=limits, group=group, poll_interval=poll_interval
        )
        try:
            yield waiters
        finally:
            waiters.close()


class _Admission:
    """Admits *total* requests at a time, at most *per_client* of one client."""

    def __init__(self, total: int, per_client: int, hold_s: float, gauge: Gauge) -> None:
        self._total = total
        self._per_client = per_client
        self._hold_s = hold_s
        self._gauge = gauge
        self._by_client: Counter[str] = Counter()
        self._admitted = 0

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Count a request of *client* while the block runs. Raises TooManyWaiters."""
        if self._admitted >= self._total or self._by_client[client] >= self._per_client:
            delay_s = random.uniform(1, max(1, self._hold_s))  # noqa: S311 - spreads a crowd
            raise TooManyWaiters(
                "too many clients are waiting already", retry_after=timedelta(seconds=delay_s)
            )
        self._count(client, 1)
        try:
            yield
        finally:
            self._count(client, -1)

    def _count(self, client: str, change: int) -> None:
        self._admitted += change
        self._gauge.inc(change)
        self._by_client[client] += change
        if not self._by_client[client]:
            del self._by_client[client]
