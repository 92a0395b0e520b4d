"""Limits what one client may cause, and how many tasks may wait for a source."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Never

from archiver.errors import (
    EngineUnavailable,
    LimitReached,
    QueueFull,
    TooManyLookups,
    TooManyNewTasks,
    TooManyTasks,
)
from archiver.ports.counters import Counters
from archiver.ports.queue import Standing
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import LIGHT_MAX
from archiver.telemetry import METRICS, log

MINUTE_S = 60

OPEN_TASKS_RETRY = timedelta(seconds=5)
DEFERRED_SHARE = 2
"""Tasks without urgency are refused if one in so many places of a queue is taken, by any tasks."""

LIMITED_DEFERRED_SHARE = 4
"""Those of limited clients, so that a batch of theirs leaves room for hooks and polls."""

QUEUE_RETRY = timedelta(seconds=30)

LIGHT_SHARE = 10
"""One in so many places of a queue is kept for light clients, so that others cannot fill it."""

COUNTS_MAX_BYTES = 8 * MEGABYTE
LOGGED_MAX_BYTES = MEGABYTE
"""Room for some 20,000 clients, and for some 2,000 that were limited. The fleet's counts go on
without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """The limits of one client; 0 means no limit. ``queue_max`` limits each source's queue.

    ``deferred_tasks`` limits open tasks without urgency, which count as those of another client.
    """

    open_tasks: int = 0
    deferred_tasks: int = 0
    tasks_per_minute: int = 0
    lookups_per_minute: int = 0
    queue_max: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Admits what one request causes. Clients that are not *limited* still need room in the queue.

    A request without a client is Archiver's own.
    """

    client: str
    source: str
    limiter: "Limiter"
    limited: bool

    async def lookup(self) -> None:
        """Raises TooManyLookups."""
        if self.limited:
            await self.limiter.count_lookup(self.client)

    async def task(self, standing: Standing) -> None:
        """Raises QueueFull, TooManyTasks, or TooManyNewTasks."""
        self.limiter.require_room(self.source, standing)
        if self.limited:
            await self.limiter.count_task(self.client, standing)

    async def deferred_task(self, standing: Standing) -> None:
        """Raises QueueFull, or TooManyTasks."""
        self.limiter.require_room_for_deferred(self.source, standing, limited=self.limited)
        if self.limited:
            self.limiter.require_few_deferred(self.client, standing)


class Limiter:
    """Admits lookups and new tasks of clients.

    Counts per minute are those of the fleet. While the engine cannot count, each process admits as
    many as the limit. *now* returns seconds since 1970.
    """

    def __init__(
        self, *, limits: ClientLimits, counters: Counters, now: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._counters = counters
        self._now = now
        self._counts: BoundedCache[tuple[str, str, int], int] = BoundedCache(
            ttl=timedelta(seconds=MINUTE_S), max_bytes=COUNTS_MAX_BYTES
        )
        self._logged: BoundedCache[str, None] = BoundedCache(
            ttl=timedelta(seconds=MINUTE_S), max_bytes=LOGGED_MAX_BYTES
        )

    def admission(self, client: str, source: str, *, limited: bool) -> Admission:
        return Admission(
            client=client, source=source, limiter=self, limited=limited and bool(client)
        )

    async def count_lookup(self, client: str) -> None:
        """Count a lookup of *client*. Raises TooManyLookups."""
        await self._count(TooManyLookups, client, self._limits.lookups_per_minute)

    async def count_task(self, client: str, standing: Standing) -> None:
        """Count a new task of *client*. Raises TooManyTasks, or TooManyNewTasks."""
        self._require_few(client, standing, self._limits.open_tasks)
        await self._count(TooManyNewTasks, client, self._limits.tasks_per_minute)

    def require_few_deferred(self, client: str, standing: Standing) -> None:
        """Return if *client* may cause another task without urgency. Raises TooManyTasks."""
        self._require_few(client, standing, self._limits.deferred_tasks)

    def _require_few(self, client: str, standing: Standing, limit: int) -> None:
        if limit and standing.open_tasks >= limit:
            self._refuse(
                TooManyTasks(
                    f"{limit} tasks of this client have not ended yet",
                    quota=limit,
                    retry_after=OPEN_TASKS_RETRY,
                ),
                client=client,
            )

    def require_room(self, source: str, standing: Standing) -> None:
        """Return if the queue of *source* has room for another task. Raises QueueFull."""
        limit = self._limits.queue_max.get(source)
        if limit is not None:
            kept = 0 if standing.open_tasks < LIGHT_MAX else limit // LIGHT_SHARE
            self._require_fewer(limit - kept, source, standing, limit)

    def require_room_for_deferred(self, source: str, standing: Standing, *, limited: bool) -> None:
        """Return if the queue of *source* has room for a task without urgency. Raises QueueFull."""
        limit = self._limits.queue_max.get(source)
        if limit is not None:
            share = LIMITED_DEFERRED_SHARE if limited else DEFERRED_SHARE
            self._require_fewer(limit // share, source, standing, limit)

    def _require_fewer(self, most: int, source: str, standing: Standing, limit: int) -> None:
        if standing.waiting >= most:
            message = "too many tasks wait for this source"
            self._refuse(QueueFull(message, quota=limit, retry_after=QUEUE_RETRY), source=source)

    async def _count(self, kind: type[LimitReached], client: str, limit: int) -> None:
        if not limit:
            return
        minute, second = divmod(self._now(), MINUTE_S)
        if await self._total(kind.policy, client, int(minute), limit) > limit:
            message = f"this client may cause {limit} {kind.policy} a minute"
            retry_after = timedelta(seconds=MINUTE_S - second)
            self._refuse(kind(message, quota=limit, retry_after=retry_after), client=client)

    async def _total(self, kind: str, client: str, minute: int, limit: int) -> int:
        """Return the count with this event. Beyond the limit, the fleet is not asked again.

        A restarted engine may have forgotten what this process has counted.
        """
        key = (kind, client, minute)
        total = (self._counts.get(key) or 0) + 1
        self._counts.put(key, total)
        if total > limit:
            return total
        try:
            fleet = await self._counters.count(kind, client, minute=minute)
        except EngineUnavailable:
            return total
        self._counts.put(key, max(fleet, self._counts.get(key) or 0))
        return max(fleet, total)

    def _refuse(self, error: LimitReached, **subject: str) -> Never:
        """Raise *error*, which is logged once a minute for each client or source."""
        METRICS.refusals.labels(code=error.code).inc()
        name = "/".join(subject.values())
        if name not in self._logged:
            self._logged.put(name, None)
            log.warning("limit.reached", code=error.code, **subject)
        raise error
