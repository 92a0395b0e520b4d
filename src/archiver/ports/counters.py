"""Counts of what clients did, for the whole fleet."""

from typing import Protocol


class Counters(Protocol):
    """Counts events per minute. Counts of earlier minutes are forgotten."""

    async def count(self, kind: str, client: str, *, minute: int) -> int:
        """Count an event of this *kind*; return how many the client has had in this *minute*.

        *minute* is a number of minutes since 1970.

        Raises:
            EngineUnavailable: The fleet cannot count now. It may have counted this event.
        """
