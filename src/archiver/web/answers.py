"""Answers of a moment ago, hits and 202s, which may be given again until something happens."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from archiver.errors import ArchiverError
from archiver.model import Region
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache, weight
from archiver.runtime.notifications import Notifications
from archiver.telemetry import log

ANSWERS_MAX = 10_000
ANSWERS_MAX_BYTES = 32 * MEGABYTE
"""Of some 3 kB each. Who asks for more than that in a minute is no crowd."""

ANSWERED_MAX_BYTES = 8 * MEGABYTE
"""Some 10,000 targets that were answered once."""

AGAIN_BYTES = 2000
"""About what is held to make an answer anew: what is wanted, and how to look for it."""

TARGET_MAX_BYTES = 2048
"""Of one that is kept. A target may be 8 kB long, most of which empty pairs are enough to fill."""

RENEWALS_AT_A_TIME = 4


class Target(NamedTuple):
    """What an answer depends on: the request as it was sent, and the region near who sent it."""

    method: str
    raw_path: bytes
    query: bytes
    region: Region | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.raw_path) + len(self.query)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What may be answered again, and the ``topics`` whose news end it.

    ``good_until`` is a reading of ``time.monotonic``; later, it may not be true any longer.
    ``retry_after`` draws what that header says, to each something else.
    """

    headers: Sequence[tuple[bytes, bytes]] = field(repr=False)
    source: str
    route: str
    topics: tuple[str, ...]
    good_until: float = float("inf")
    status: int = 302
    body: bytes = b""
    outcome: str = "hit"
    retry_after: Callable[[], int] | None = None

    @property
    def is_hit(self) -> bool:
        return self.outcome == "hit"


Again: TypeAlias = Callable[[], Awaitable[Answer | None]]
"""Makes an answer anew; None says that it is not to be given any longer."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    answer: Answer
    again: Again | None
    renew_at: float
    good_until: float
    size_bytes: int
    renewing: bool = False


class Answers:
    """Remembers each answer for twice *ttl* at the most.

    It is made anew once it is *ttl* old, if it was offered with what does that: hits are. An answer
    ought to be offered from the second time on that it is given, so that a long tail of archives
    that are asked for once costs next to nothing. With a *ttl* of 0 none ever comes again.
    """

    def __init__(
        self,
        *,
        ttl: timedelta,
        size: int = ANSWERS_MAX,
        max_bytes: int = ANSWERS_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl.total_seconds()
        self._size = size
        self._max_bytes = max_bytes
        self._kept_bytes = 0
        self._kept: dict[Target, _Kept] = {}
        self._targets: dict[str, set[Target]] = {}
        self._answered: BoundedCache[Target, None] = BoundedCache(
            ttl=ttl, max_bytes=ANSWERED_MAX_BYTES
        )
        self._due: asyncio.Queue[Target] = asyncio.Queue(size)
        self._moments = _Moments(size=size)

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def keeps(self, target: Target) -> bool:
        """Tell whether an answer to *target* is ever kept."""
        return self._ttl_s > 0 and target.size_bytes <= TARGET_MAX_BYTES

    @property
    def moment(self) -> int:
        """What to give to ``offer`` of an answer that one begins to look for now."""
        return self._moments.now

    def get(self, target: Target) -> Answer | None:
        kept = self._kept.get(target)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.good_until:
            self._remove(target)
            return None
        if now >= kept.renew_at and kept.again and not kept.renewing:
            self._renew_later(target, kept)
        return kept.answer

    def comes_again(self, target: Target) -> bool:
        """Tell whether *target* was answered before, and note that it is now."""
        if not self.keeps(target):
            return False
        known = target in self._answered
        self._answered.put(target, None)
        return known

    def offer(self, target: Target, answer: Answer, again: Again | None, *, moment: int) -> None:
        """Keep *answer*, unless there was news of its topics since *moment*."""
        if self.keeps(target) and not self._moments.any_since(moment, answer.topics):
            self._keep(target, answer, again)

    def drop(self, topic: str | None) -> None:
        """Forget what news of *topic* ends; of None, everything."""
        self._moments.note(topic)
        if topic is None:
            self._kept.clear()
            self._kept_bytes = 0
            self._targets.clear()
        for target in tuple(self._targets.get(topic or "", ())):
            self._remove(target)

    async def keep_fresh(self, news: Notifications) -> None:
        """Drop what *news* ends, and renew what grows old, until cancelled."""
        news.subscribe(self.drop)
        async with asyncio.TaskGroup() as group:
            for _ in range(RENEWALS_AT_A_TIME):
                group.create_task(self._renew_what_is_due())

    def _keep(self, target: Target, answer: Answer, again: Again | None) -> None:
        self._remove(target)
        now = self._clock()
        size_bytes = weight(target) + weight(answer) + AGAIN_BYTES
        self._make_room(size_bytes, now)
        self._kept[target] = _Kept(
            answer=answer,
            again=again,
            renew_at=now + self._ttl_s,
            good_until=min(now + 2 * self._ttl_s, answer.good_until),
            size_bytes=size_bytes,
        )
        self._kept_bytes += size_bytes
        for topic in answer.topics:
            self._targets.setdefault(topic, set()).add(target)

    def _make_room(self, size_bytes: int, now: float) -> None:
        """Remove the first ones until there is room, and those among them that are too old."""
        while self._kept:
            first = next(iter(self._kept))
            full = len(self._kept) >= self._size or self._kept_bytes + size_bytes > self._max_bytes
            if not full and now < self._kept[first].good_until:
                return
            self._remove(first)

    def _remove(self, target: Target) -> None:
        if kept := self._kept.pop(target, None):
            self._kept_bytes -= kept.size_bytes
            for topic in kept.answer.topics:
                targets = self._targets[topic]
                targets.discard(target)
                if not targets:
                    del self._targets[topic]

    def _renew_later(self, target: Target, kept: _Kept) -> None:
        if not self._due.full():
            kept.renewing = True
            self._due.put_nowait(target)

    async def _renew_what_is_due(self) -> None:
        while True:
            target = await self._due.get()
            if kept := self._kept.get(target):
                await self._renew(target, kept)

    async def _renew(self, target: Target, kept: _Kept) -> None:
        """Put a new answer in the place of *kept*. If there is none now, it may yet grow old."""
        if kept.again is None:
            return
        moment = self.moment
        try:
            answer = await kept.again()
        except ArchiverError:
            return
        except Exception:  # noqa: BLE001 - it must not end the renewal of all others
            log.exception("hit.not_renewed")
            return
        if answer is None:
            self._remove(target)
        elif not self._moments.any_since(moment, answer.topics):
            self._keep(target, answer, kept.again)


class _Moments:
    """Tells whether there was news between two moments. Doubts whatever is too long ago to know."""

    def __init__(self, *, size: int) -> None:
        self.now = 0
        self._size = size
        self._last: dict[str, int] = {}
        self._known_since = 0

    def note(self, topic: str | None) -> None:
        self.now += 1
        if topic is None:
            self._last.clear()
            self._known_since = self.now
            return
        self._last.pop(topic, None)
        self._last[topic] = self.now
        if len(self._last) > self._size:
            self._known_since = self._last.pop(next(iter(self._last)))

    def any_since(self, moment: int, topics: Sequence[str]) -> bool:
        if moment < self._known_since:
            return True
        return any(self._last.get(topic, 0) > moment for topic in topics)
