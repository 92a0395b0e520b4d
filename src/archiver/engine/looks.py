"""Looks for what is not remembered: one for all who ask, and another if news overtook it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from archiver.concurrency import Coalesce

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


class Looks(Generic[V]):
    """Runs at most one look per key at a time."""

    def __init__(self) -> None:
        self._running: Coalesce[str, Look[V]] = Coalesce()
        self._overtaken: dict[str, bool] = {}

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
        *remember* is called at the end of each look that was not overtaken.
        """

        def start() -> Awaitable[Look[V]]:
            return self._look(key, look, remember)

        made = await self._running.run(key, start)
        if not made.tells(since):
            made = await self._running.run(key, start)  # which began after this was asked for
        return made.found

    async def _look(
        self, key: str, look: Callable[[], Awaitable[V]], remember: Callable[[Look[V]], None]
    ) -> Look[V]:
        self._overtaken[key] = False
        at = datetime.now(UTC)
        try:
            found = await look()
        finally:
            overtaken = self._overtaken.pop(key)
        made = Look(found=found, at=at, overtaken=overtaken)
        if not overtaken:
            remember(made)
        return made

    def overtake(self, key: str) -> None:
        """Believe no look for *key* that is under way: there is news of it."""
        if key in self._overtaken:
            self._overtaken[key] = True

    def overtake_all(self) -> None:
        self._overtaken = dict.fromkeys(self._overtaken, True)
