"""When archives were last used, as one process reads it from the engine."""

from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import date

from archiver.errors import EngineUnavailable
from archiver.model import Archive
from archiver.ports.last_uses import LastUses


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownUses:
    """The days of last uses, by the digest of the key. ``since`` counts for all other archives."""

    days: Mapping[bytes, date]
    since: date

    def last_use(self, archive: Archive, created: date) -> date:
        """Return the day from which on *archive*, created on this day, counts as unused."""
        return max(created, self.days.get(bytes.fromhex(archive.key_hash), self.since))


async def read_uses(uses: LastUses, *, today: date) -> KnownUses:
    """Return all recorded uses. Without records, no archive seems unused.

    Takes about 150 bytes for each archive. Raises EngineUnavailable.
    """
    since = await uses.since() or today
    days: dict[bytes, date] = {}
    async with aclosing(uses.scan()) as scanned:
        async for key_hash, day in scanned:
            with suppress(ValueError):
                days[bytes.fromhex(key_hash)] = day
    return KnownUses(days=days, since=since)


class UseLookup:
    """Looks up the last use of single archives.

    If it is not *required*, an engine that does not answer is not asked again, and nothing is
    known. Otherwise EngineUnavailable is raised.
    """

    def __init__(self, *, uses: LastUses, today: date, required: bool) -> None:
        self._uses = uses
        self._today = today
        self._required = required
        self._since: date | None = None
        self._is_away = False

    async def last_use(self, archive: Archive, created: date) -> date | None:
        """Return the same as ``KnownUses.last_use``, or None if it is unknown."""
        if self._is_away:
            return None
        try:
            self._since = self._since or await self._uses.since() or self._today
            return max(created, await self._uses.day(archive.key_hash) or self._since)
        except EngineUnavailable:
            if self._required:
                raise
            self._is_away = True
            return None
