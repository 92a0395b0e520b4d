"""The fake of ``ports.last_uses``."""

from collections.abc import AsyncGenerator, Collection
from datetime import date

from archiver.errors import EngineUnavailable


class MemoryLastUses:
    """``outage`` is raised by every method. ``writes`` counts the recorded uses."""

    def __init__(self) -> None:
        self.days: dict[str, date] = {}
        self.outage: EngineUnavailable | None = None
        self.writes = 0
        self._since: date | None = None

    async def record(self, key_hashes: Collection[str], day: date) -> None:
        self._require_engine()
        self._since = self._since or day
        self.writes += len(key_hashes)
        self.days.update(dict.fromkeys(key_hashes, day))

    async def since(self) -> date | None:
        self._require_engine()
        return self._since

    async def day(self, key_hash: str) -> date | None:
        self._require_engine()
        return self.days.get(key_hash)

    async def scan(self) -> AsyncGenerator[tuple[str, date], None]:
        self._require_engine()
        for each in tuple(self.days.items()):
            yield each

    def _require_engine(self) -> None:
        if self.outage:
            raise self.outage
