"""When archives were last used, which decides how long retention keeps them."""

from collections.abc import AsyncGenerator, Collection
from datetime import date
from typing import Protocol


class LastUses(Protocol):
    """The day of the last use of archives, by key hash. It may be emptied at any time.

    Every method raises EngineUnavailable.
    """

    async def record(self, key_hashes: Collection[str], day: date) -> None:
        """Store *day* (UTC) as the last use of these archives. May be repeated."""

    async def since(self) -> date | None:
        """Return the day from which on uses are known completely; None before the first one.

        An archive without a recorded use may have been used before that day.
        """

    async def day(self, key_hash: str) -> date | None:
        """Return the day that is stored for this archive, or None."""

    def scan(self) -> AsyncGenerator[tuple[str, date], None]:
        """Yield each key hash and its day. A use during the scan may be missing."""
