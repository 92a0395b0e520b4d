"""Looks into the buckets for copies that nobody has seen there for a while."""

import asyncio
from contextlib import suppress

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.jetstream.index import JetStreamIndex, Sighting
from archiver.model import Archive, Copies
from archiver.ports.queue import Engine
from archiver.ports.storage import Storage, StoredState
from archiver.telemetry import METRICS, log

WAITING_MAX = 1000
"""Whoever finds no room is checked after one of its next hits."""

AT_A_TIME = 8
"""Of one process: a manifest and a HEAD of each region, in the background."""


class Checks:
    """Has entries of the index checked that are old when somebody asks for them.

    Nobody waits for it. A region that does not answer changes nothing.
    """

    def __init__(self, *, index: JetStreamIndex, storage: Storage, engine: Engine) -> None:
        self._index = index
        self._storage = storage
        self._engine = engine
        self._waiting: dict[str, Archive] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(WAITING_MAX)
        index.on_old(self.ask)

    def ask(self, archive: Archive) -> None:
        """Have *archive* checked soon, unless it is to be already or too many are."""
        if archive.key_hash not in self._waiting and not self._queue.full():
            self._waiting[archive.key_hash] = archive
            self._queue.put_nowait(archive.key_hash)

    async def run(self) -> None:
        """Check what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_A_TIME):
                group.create_task(self._check_what_comes())

    async def _check_what_comes(self) -> None:
        while True:
            digest = await self._queue.get()
            try:
                await self.check(self._waiting[digest])
            except Exception:  # noqa: BLE001 - it must not end the checks of all others
                log.exception("check.broken")
            finally:
                del self._waiting[digest]

    async def check(self, archive: Archive) -> None:
        """Compare what is believed of *archive* with the buckets, if nobody else just has."""
        seen = await self._index.latest(archive)
        if seen is None or not self._index.is_old(seen):
            return
        try:
            found = await self._storage.find(archive)
        except StorageUnavailable:
            self._unanswered(archive, seen)
            return
        true = self._true(seen.copies, found)
        gone = [r for r in seen.copies.regions if true is None or r not in true.regions]
        if gone or (true and true.manifest != seen.copies.manifest):
            await self._take_out(archive, seen, true)
        elif set(found.unreachable).intersection(seen.copies.regions):
            self._unanswered(archive, seen)
        else:
            METRICS.checks.labels(outcome="sound").inc()
            await self._index.settle(archive, seen, true)

    def _unanswered(self, archive: Archive, seen: Sighting) -> None:
        METRICS.checks.labels(outcome="unanswered").inc()
        self._index.put_off(archive, seen.copies)

    def _true(self, believed: Copies, found: StoredState) -> Copies | None:
        """Return which of the believed copies are there, or may be, and which others are."""
        same = found.copies is not None and found.copies.manifest == believed.manifest
        sound = found.copies.regions if same and found.copies else ()
        silent = set(found.unreachable).intersection(believed.regions)
        regions = tuple(r for r in self._storage.regions if r in sound or r in silent)
        return Copies(manifest=believed.manifest, regions=regions) if regions else found.copies

    async def _take_out(self, archive: Archive, seen: Sighting, true: Copies | None) -> None:
        METRICS.checks.labels(outcome="gone").inc()
        there = true.regions if true and true.manifest == seen.copies.manifest else ()
        for region in seen.copies.regions:
            if region not in there:
                log.warning("copy.gone", region=region, key=archive.key)
        await self._index.settle(archive, seen, true)
        missing = [r for r in self._storage.regions if true and r not in true.regions]
        if missing:
            with suppress(EngineUnavailable):
                await self._engine.repair_later(archive, missing)
