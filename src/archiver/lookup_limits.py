"""Limits the lookups that wait for a host, and admits those of a client."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from archiver.errors import TooManyWaiters
from archiver.ports.index import Resolved

LOOKUPS_MAX = 500
"""Different lookups that may wait for a host. A host answers some 100 a second."""

LOOKUPS_PER_CLIENT_MAX = 16
"""Lookups of one client among them. The others wait behind them, for a few seconds at most."""

LOOKUPS_RETRY = timedelta(seconds=5)

Lookup: TypeAlias = Callable[[], Awaitable[Resolved]]

AdmitLookup: TypeAlias = Callable[[], Awaitable[None]]
"""Returns if a client may cause another lookup, and raises an error if not."""


async def admit_freely() -> None:
    """Admit every lookup."""


class LookupLimits:
    """Limits the lookups that wait for a host, per source and per client of a source.

    Clients can invent any number of revs.
    """

    def __init__(self, *, per_source: int, per_client: int) -> None:
        self._limits = (per_source, per_client)
        self._waiting: Counter[tuple[str, ...]] = Counter()

    def admit(self, source: str, client: str, lookup: Lookup) -> Lookup:
        """Return *lookup*, which counts from now until it has run. Raises TooManyWaiters."""
        groups = ((source,), (source, client))
        for group, limit in zip(groups, self._limits, strict=True):
            if self._waiting[group] >= limit:
                message = "too many lookups wait for the host"
                raise TooManyWaiters(message, retry_after=LOOKUPS_RETRY)
        self._waiting.update(groups)

        async def counted() -> Resolved:
            try:
                return await lookup()
            finally:
                self._waiting.subtract(groups)
                if not self._waiting[source, client]:
                    del self._waiting[source, client]

        return counted


class LookupCause(NamedTuple):
    """The client that causes a lookup, and the function that admits it."""

    client: str
    admit: AdmitLookup

    def admitted(self, lookup: Lookup) -> Lookup:
        async def admit_and_look_up() -> Resolved:
            await self.admit()
            return await lookup()

        return admit_and_look_up
