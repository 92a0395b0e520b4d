"""Lookups that concurrent callers share, and that are repeated if a change overtakes them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from archiver.runtime.single_flight import SingleFlight

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Generic[V]):
    """The result of a lookup, and when it began; ``overtaken`` if the key has changed since."""

    found: V
    began_at: datetime
    overtaken: bool

    def is_current(self, since: datetime | None) -> bool:
        """Return whether the result is current, and the lookup did not begin before *since*."""
        return not self.overtaken and (since is None or self.began_at >= since)


class Lookups(Generic[V]):
    """Runs at most one lookup per key at a time."""

    def __init__(self) -> None:
        self._flights: SingleFlight[str, Lookup[V]] = SingleFlight()
        self._overtaken: dict[str, bool] = {}

    async def join_or_start(
        self,
        key: str,
        look_up: Callable[[], Awaitable[V]],
        *,
        remember: Callable[[Lookup[V]], None],
        since: datetime | None = None,
    ) -> V:
        """Return the result of *look_up*, or of a lookup of the same key that is running.

        The lookup is repeated once if the key changed during it, or if it began before *since*.
        *remember* is called with the result of each lookup that was not overtaken.
        """

        async def fly() -> Lookup[V]:
            began_at = datetime.now(UTC)
            self._overtaken[key] = False
            try:
                found = await look_up()
            finally:
                overtaken = self._overtaken.pop(key)
            lookup = Lookup(found=found, began_at=began_at, overtaken=overtaken)
            if not overtaken:
                remember(lookup)
            return lookup

        lookup = await self._flights.join_or_start(key, fly)
        if not lookup.is_current(since):
            lookup = await self._flights.join_or_start(key, fly)  # this one began after the call
        return lookup.found

    def overtake(self, key: str) -> None:
        """Do not trust a running lookup of *key*, because the key has changed."""
        if key in self._overtaken:
            self._overtaken[key] = True

    def overtake_all(self) -> None:
        self._overtaken = dict.fromkeys(self._overtaken, True)
