"""Pins: which archives are never purged by mistake, as this process knows."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Archive, Pin, Region
from archiver.ports.storage import Storage
from archiver.telemetry import log

READ_INTERVAL = timedelta(minutes=1)
"""How old the answer may be. A reading lists a thousand pins per request and region."""

REMEMBERED_MAX = 100_000
"""Key hashes: about 15 MB. Pins are made by hand, so there are far fewer."""


class Pins:
    """Pins archives, and remembers which are pinned.

    No hit and no status asks the buckets: they are read in the background.
    """

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage
        self.list_pinned, self.read_pin = storage.list_pinned, storage.read_pin
        self._pinned: frozenset[str] = frozenset()

    def is_pinned(self, archive: Archive) -> bool:
        """Return whether *archive* was pinned when the pins were last read."""
        return archive.key_hash in self._pinned

    async def follow(self) -> None:
        """Read the pins at intervals, until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(READ_INTERVAL.total_seconds())

    async def read(self) -> None:
        """Read the pins of all regions. If a region is silent, those known before stay."""
        listing = await self._storage.list_pinned()
        pinned = {archive.key_hash for archive in listing.archives}
        if listing.failures:
            pinned |= self._pinned
        if len(pinned) > REMEMBERED_MAX:
            log.warning("pins.too_many", pins=len(pinned), remembered=REMEMBERED_MAX)
        self._pinned = frozenset(sorted(pinned)[:REMEMBERED_MAX])

    async def pin(self, archive: Archive, *, principal: str, reason: str) -> bool:
        """Pin *archive* in every region; return False if it does not exist.

        The pin that a region has stays. Raises StorageUnavailable if a region did not take it.
        """
        if not await self._exists(archive):
            return False
        earlier = await self._storage.read_pin(archive)
        pin = Pin(principal=principal, reason=reason, created_at=datetime.now(UTC))
        failures = await self._storage.put_pin(archive, pin)
        if len(failures) < len(self._storage.regions):
            self._pinned |= {archive.key_hash}
        _require_all(failures)
        if not await self._exists(archive):  # it expired meanwhile
            await self._storage.remove_pin(archive)
            return False
        if earlier is None:
            log.warning("archive.pinned", key=archive.key, principal=principal, reason=reason)
        return True

    async def _exists(self, archive: Archive) -> bool:
        found = await self._storage.find(archive)
        return found.copies is not None or found.dangling_manifest is not None

    async def unpin(self, archive: Archive, *, principal: str) -> bool:
        """Remove the pin from every region; return False if there is none.

        Raises StorageUnavailable if a region did not answer.
        """
        pin = await self._storage.read_pin(archive)
        _require_all(await self._storage.remove_pin(archive))  # a silent region may have one
        if pin is None:
            return False
        self._pinned -= {archive.key_hash}
        log.warning("archive.unpinned", key=archive.key, principal=principal)
        return True


def _require_all(failures: Mapping[Region, ArchiverError]) -> None:
    if failures:
        raise StorageUnavailable(f"try again, because these failed: {', '.join(failures)}")
