"""Responses that may be repeated until they change: hits, and the 202s of a crowd."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from archiver.access.access import ANONYMOUS, Principal
from archiver.errors import ArchiverError
from archiver.model import Region
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache, weight
from archiver.runtime.notifications import Notifications
from archiver.telemetry import log
from archiver.web.reply import Headers, Renew, Repeatable, with_standard_headers

RESPONSES_MAX = 10_000
RESPONSES_MAX_BYTES = 32 * MEGABYTE
"""About 3 kB per response. Clients that request more than that in a minute are no crowd."""

SEEN_MAX_BYTES = 8 * MEGABYTE
"""About 10,000 keys that were requested once."""

RENEW_BYTES = 2000
"""Estimated size of what a renewal refers to: the parsed request and its archive's key."""

TARGET_MAX_BYTES = 2048
"""Longest target that is remembered. A target may have 8 kB, mostly empty ``&`` pairs."""

RENEWALS_AT_A_TIME = 4


class CacheKey(NamedTuple):
    """Everything that a response depends on: the request, and the region near the client.

    A response for one ``principal`` is never repeated to another; it is empty if they are
    anonymous.
    """

    method: str
    raw_path: bytes
    query: bytes
    region: Region | None = None
    principal: Principal = ANONYMOUS


@dataclass(slots=True, kw_only=True)
class CachedResponse:
    """A response ready to be sent, but for the headers that differ between clients.

    It is valid until ``good_until``, and due for renewal at ``renew_at``, which is no later.
    """

    status: int
    headers: Headers = field(repr=False)
    body: bytes
    route: str
    source: str
    outcome: str
    topics: tuple[str, ...]
    retry_after: Callable[[], int] | None
    unless_header: bytes | None
    renew: Renew | None
    archive: str | None
    renew_at: float
    good_until: float
    size_bytes: int = 0
    renewing: bool = False


class ResponseCache:
    """Remembers each response for at most twice *ttl*, or until a notification of its topics.

    A response that has a ``renew`` is renewed in the background once it is *ttl* old. With a *ttl*
    of 0, no response is remembered.
    """

    def __init__(
        self,
        *,
        ttl: timedelta,
        size: int = RESPONSES_MAX,
        max_bytes: int = RESPONSES_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl.total_seconds()
        self._size = size
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[CacheKey, CachedResponse] = {}
        self._keys_by_topic: dict[str, set[CacheKey]] = {}
        self._seen: BoundedCache[CacheKey, None] = BoundedCache(ttl=ttl, max_bytes=SEEN_MAX_BYTES)
        self._due: asyncio.Queue[CacheKey] = asyncio.Queue(size)
        self._changes = _Changes(size=size)

    def __len__(self) -> int:
        """Return how many responses are remembered."""
        return len(self._entries)

    def accepts(self, key: CacheKey) -> bool:
        """Return whether a response to *key* may be remembered."""
        return self._ttl_s > 0 and len(key.raw_path) + len(key.query) <= TARGET_MAX_BYTES

    @property
    def version(self) -> int:
        """The number of changes so far. Read it before you look for what you will remember."""
        return self._changes.count

    def get(self, key: CacheKey) -> CachedResponse | None:
        entry = self._entries.get(key)
        if entry is None or (now := self._clock()) < entry.renew_at:
            return entry
        if now >= entry.good_until:
            self._remove(key)
            return None
        if entry.renew and not entry.renewing and not self._due.full():
            entry.renewing = True
            self._due.put_nowait(key)
        return entry

    def seen_before(self, key: CacheKey) -> bool:
        """Return whether *key*, which is acceptable, was requested before; note that it is now."""
        seen = key in self._seen
        self._seen.put(key, None)
        return seen

    def remember(
        self, key: CacheKey, repeatable: Repeatable, *, route: str, source: str, version: int
    ) -> None:
        """Remember a response, unless one of its topics has changed since *version*."""
        if not self.accepts(key) or self._changes.any_since(version, repeatable.topics):
            return
        self._remove(key)
        now = self._clock()
        good_until = min(now + 2 * self._ttl_s, repeatable.good_until)
        entry = CachedResponse(
            status=repeatable.response.status_code,
            headers=tuple(with_standard_headers(repeatable.response.raw_headers)),
            body=bytes(repeatable.response.body),
            route=route,
            source=source,
            outcome=repeatable.outcome,
            topics=repeatable.topics,
            retry_after=repeatable.retry_after,
            unless_header=repeatable.unless_header,
            renew=repeatable.renew,
            archive=repeatable.archive,
            renew_at=min(now + self._ttl_s, good_until),
            good_until=good_until,
        )
        entry.size_bytes = weight(key) + weight(entry) + RENEW_BYTES
        self._make_room(entry.size_bytes, now)
        self._entries[key] = entry
        self._bytes += entry.size_bytes
        for topic in entry.topics:
            self._keys_by_topic.setdefault(topic, set()).add(key)

    def invalidate(self, topic: str | None) -> None:
        """Forget the responses that depend on *topic*; for None, all of them."""
        self._changes.note(topic)
        if topic is None:
            self._entries.clear()
            self._bytes = 0
            self._keys_by_topic.clear()
        for key in tuple(self._keys_by_topic.get(topic or "", ())):
            self._remove(key)

    async def keep_fresh(self, notifications: Notifications) -> None:
        """Invalidate responses at *notifications*, and renew old ones, until cancelled."""
        notifications.changes.add(self.invalidate)
        async with asyncio.TaskGroup() as group:
            for _ in range(RENEWALS_AT_A_TIME):
                group.create_task(self._renew_due_entries())

    def _make_room(self, size_bytes: int, now: float) -> None:
        """Remove the oldest entries until there is room, and expired ones in front of them."""
        while self._entries:
            oldest = next(iter(self._entries))
            full = len(self._entries) >= self._size or self._bytes + size_bytes > self._max_bytes
            if not full and now < self._entries[oldest].good_until:
                return
            self._remove(oldest)

    def _remove(self, key: CacheKey) -> None:
        if entry := self._entries.pop(key, None):
            self._bytes -= entry.size_bytes
            for topic in entry.topics:
                keys = self._keys_by_topic[topic]
                keys.discard(key)
                if not keys:
                    del self._keys_by_topic[topic]

    async def _renew_due_entries(self) -> None:
        while True:
            key = await self._due.get()
            if (entry := self._entries.get(key)) and entry.renew:
                await self._renew(key, entry, entry.renew)

    async def _renew(self, key: CacheKey, entry: CachedResponse, renew: Renew) -> None:
        """Replace an entry by its successor. If the renewal fails, the entry expires in time."""
        version = self.version
        try:
            repeatable = await renew()
        except ArchiverError:
            return
        except Exception:  # noqa: BLE001 - other renewals go on
            log.exception("hit.not_renewed")
            return
        if repeatable:
            self.remember(key, repeatable, route=entry.route, source=entry.source, version=version)
        else:
            self._remove(key)


class _Changes:
    """Counts changes, and remembers the last one of each of *size* topics.

    A topic counts as changed if its last change may be older than what is remembered.
    """

    def __init__(self, *, size: int) -> None:
        self.count = 0
        self._size = size
        self._last: dict[str, int] = {}
        self._complete_since = 0

    def note(self, topic: str | None) -> None:
        self.count += 1
        if topic is None:
            self._last.clear()
            self._complete_since = self.count
            return
        self._last.pop(topic, None)
        self._last[topic] = self.count
        if len(self._last) > self._size:
            self._complete_since = self._last.pop(next(iter(self._last)))

    def any_since(self, version: int, topics: Sequence[str]) -> bool:
        if version < self._complete_since:
            return True
        return any(self._last.get(topic, 0) > version for topic in topics)
