"""Looks for what is not remembered: one for all who ask, and another if news overtook it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Generic[V]):
    """What a look found that began ``at`` a moment; ``overtaken`` if there was news since."""

    found: V
    at: datetime
    overtaken: bool

    def tells(self, since: datetime | None) -> bool:
        """Tell whether it is known how things are now, or were after *since*."""
        return not self.overtaken and (since is None or self.at >= since)


@dataclass(slots=True)
class _UnderWay(Generic[V]):
    """A look that one caller makes, for whom others wait.

    Without ``made`` and ``failure`` at its end, that caller was cancelled.
    """

    overtaken: bool = False
    made: Look[V] | None = None
    failure: Exception | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Looks(Generic[V]):
    """Runs at most one look per key at a time.

    The first who asks makes it, without a task of its own: hardly ever does anyone else ask then.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, _UnderWay[V]] = {}

    async def run(
        self,
        key: str,
        look: Callable[[], Awaitable[V]],
        *,
        remember: Callable[[Look[V]], None],
        since: datetime | None = None,
    ) -> V:
        """Return what *look* finds, or one for the same key that is under way already.

        There is one more if there was news of *key* meanwhile, or if it began before *since*.
        *remember* is called at the end of each look that was not overtaken. What *look* raises
        comes to all who wait for it.
        """
        made = await self._run(key, look, remember)
        if not made.tells(since):
            made = await self._run(key, look, remember)  # which began after this was asked for
        return made.found

    async def _run(
        self, key: str, look: Callable[[], Awaitable[V]], remember: Callable[[Look[V]], None]
    ) -> Look[V]:
        while under_way := self._under_way.get(key):
            await under_way.ended.wait()
            if under_way.failure:  # of a thousand, each would add its own way to that of the others
                raise under_way.failure.with_traceback(None)
            if under_way.made:
                return under_way.made
        return await self._look(key, look, remember)

    async def _look(
        self, key: str, look: Callable[[], Awaitable[V]], remember: Callable[[Look[V]], None]
    ) -> Look[V]:
        under_way = self._under_way[key] = _UnderWay()
        at = datetime.now(UTC)
        try:
            found = await look()
        except Exception as exc:
            under_way.failure = exc
            raise
        else:
            made = under_way.made = Look(found=found, at=at, overtaken=under_way.overtaken)
        finally:
            del self._under_way[key]
            under_way.ended.set()
        if not made.overtaken:
            remember(made)
        return made

    def overtake(self, key: str) -> None:
        """Believe no look for *key* that is under way: there is news of it."""
        if under_way := self._under_way.get(key):
            under_way.overtaken = True

    def overtake_all(self) -> None:
        for under_way in self._under_way.values():
            under_way.overtaken = True
