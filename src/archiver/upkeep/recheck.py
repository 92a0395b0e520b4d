"""Checks that indexed copies are still in the buckets."""

import asyncio
from contextlib import suppress

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.model import Archive, Copies
from archiver.ports.index_entries import IndexEntries, IndexEntry
from archiver.ports.queue import RepairList
from archiver.ports.storage import Storage, StoredState
from archiver.telemetry import METRICS, log

WAITING_MAX = 1000
"""Archives that wait for a check. One that finds no room is checked after one of its next hits."""

CONCURRENCY = 8
"""Checks at a time per process. Each reads a manifest and sends a HEAD request per region."""


class Rechecker:
    """Compares stale entries with the buckets. Regions that do not answer change nothing."""

    def __init__(self, *, entries: IndexEntries, storage: Storage, repairs: RepairList) -> None:
        self._entries = entries
        self._storage = storage
        self._repairs = repairs
        self._waiting: dict[str, Archive] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(WAITING_MAX)
        entries.stale.add(self.schedule)

    def schedule(self, archive: Archive) -> None:
        """Have *archive* checked soon, unless it is scheduled or too many are."""
        if archive.key_hash not in self._waiting and not self._queue.full():
            self._waiting[archive.key_hash] = archive
            self._queue.put_nowait(archive.key_hash)

    async def recheck_scheduled(self) -> None:
        """Check the scheduled archives until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._recheck_in_turn())

    async def _recheck_in_turn(self) -> None:
        while True:
            key_hash = await self._queue.get()
            try:
                await self.recheck(self._waiting[key_hash])
            except Exception:  # noqa: BLE001 - one archive must not end the checks of all others
                log.exception("check.broken")
            finally:
                del self._waiting[key_hash]

    async def recheck(self, archive: Archive) -> None:
        """Compare the entry of *archive* with the buckets, unless another process just has."""
        entry = await self._entries.latest(archive)
        if entry is None or not self._entries.is_stale(entry):
            return
        try:
            found = await self._storage.find(archive)
        except StorageUnavailable:
            self._put_off(archive, entry)
            return
        actual = self._actual(entry.copies, found)
        gone = [r for r in entry.copies.regions if actual is None or r not in actual.regions]
        if gone or (actual and actual.manifest != entry.copies.manifest):
            await self._correct(archive, entry, actual)
        elif set(found.unreachable).intersection(entry.copies.regions):
            self._put_off(archive, entry)
        else:
            METRICS.checks.labels(outcome="sound").inc()
            await self._entries.replace(archive, entry, actual)

    def _put_off(self, archive: Archive, entry: IndexEntry) -> None:
        METRICS.checks.labels(outcome="unanswered").inc()
        self._entries.put_off(archive, entry.copies)

    def _actual(self, indexed: Copies, found: StoredState) -> Copies | None:
        """Return the copies that the buckets show, and the indexed ones of silent regions."""
        same = found.copies is not None and found.copies.manifest == indexed.manifest
        sound = found.copies.regions if same and found.copies else ()
        silent = set(found.unreachable).intersection(indexed.regions)
        regions = tuple(r for r in self._storage.regions if r in sound or r in silent)
        return Copies(manifest=indexed.manifest, regions=regions) if regions else found.copies

    async def _correct(self, archive: Archive, entry: IndexEntry, actual: Copies | None) -> None:
        METRICS.checks.labels(outcome="gone").inc()
        kept = actual.regions if actual and actual.manifest == entry.copies.manifest else ()
        for region in (r for r in entry.copies.regions if r not in kept):
            log.warning("copy.gone", region=region, key=archive.key)
        await self._entries.replace(archive, entry, actual)
        missing = [r for r in self._storage.regions if actual and r not in actual.regions]
        if missing:
            with suppress(EngineUnavailable):
                await self._repairs.add(archive, missing)
