"""Records the use of archives, at most once per archive and day in each process."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from archiver.errors import EngineUnavailable
from archiver.ports.last_uses import LastUses
from archiver.telemetry import log

INTERVAL = timedelta(minutes=1)

ARCHIVES_MAX = 100_000
"""Archives that are remembered as recorded today: about 15 MB. Beyond that, all are recorded once
more."""

LAST_TRY = timedelta(seconds=1)
"""How long an ending process waits for the engine."""


def _today() -> date:
    return datetime.now(UTC).date()


class UseRecorder:
    """Collects uses, and records them in batches."""

    def __init__(
        self,
        *,
        uses: LastUses,
        interval: timedelta = INTERVAL,
        archives_max: int = ARCHIVES_MAX,
        today: Callable[[], date] = _today,
    ) -> None:
        self._uses = uses
        self._interval_s = interval.total_seconds()
        self._archives_max = archives_max
        self._today = today
        self._day = today()
        self._recorded: set[str] = set()
        self._pending: set[str] = set()

    def note(self, key_hash: str) -> None:
        """Note a use of an archive. Takes no longer than a look into two sets."""
        if key_hash not in self._recorded and len(self._pending) < self._archives_max:
            self._pending.add(key_hash)

    async def record_regularly(self) -> None:
        """Record the noted uses at each interval, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self.record()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_TRY.total_seconds()):
                    await self.record()

    async def record(self) -> None:
        """Record what was noted since the last call. If the engine is away, keep it for the next.

        A use counts for the day on which it is recorded.
        """
        if (today := self._today()) != self._day:
            self._day = today
            self._recorded.clear()
        noted, self._pending = self._pending, set()
        if not noted:
            return
        try:
            await self._uses.record(noted, today)
        except EngineUnavailable as exc:
            log.debug("uses.not_recorded", archives=len(noted), code=exc.code)
            self._pending |= noted
            return
        if len(self._recorded) + len(noted) > self._archives_max:
            self._recorded.clear()
        self._recorded |= noted
