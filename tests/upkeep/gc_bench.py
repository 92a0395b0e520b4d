"""Buckets, uses and an engine in memory, on which archives expire."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from archiver.model import Archive, Manifest, Region
from archiver.purge import Forgetter
from archiver.retention import Retention
from archiver.testing import (
    MemoryEngine,
    MemoryIndex,
    MemoryLastUses,
    MemorySchedule,
    MemoryStorage,
)
from archiver.upkeep.collector import Collector
from archiver.upkeep.expiry import Expirer, Kept
from archiver.upkeep.gc import Gc, GcTally, Outcome
from tests.parts.fleet import an_archive, copies_of

ONE, TWO = Region("one"), Region("two")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
GRACE = 2 * HOUR
OLD = 40
MONTH = Retention(days=30)


class Bench:
    def __init__(self) -> None:
        self.storage = MemoryStorage(regions=(ONE, TWO))
        self.uses = MemoryLastUses()
        self.schedule = MemorySchedule()
        self.index = MemoryIndex(storage=self.storage)
        self.engine = MemoryEngine()
        self.expirer = Expirer(
            storage=self.storage,
            contents=self.storage.contents,
            forgetter=Forgetter(index=self.index, queue=self.engine, repairs=self.engine),
            grace=GRACE,
        )
        self.now = datetime.now(UTC)

    async def open(self) -> None:
        """Have the fleet know of uses since long ago."""
        await self.uses.record([], self.now.date() - timedelta(days=1000))

    def gc(self, retention: Retention = MONTH) -> Gc:
        return Gc(
            storage=self.storage,
            contents=self.storage.contents,
            uses=self.uses,
            expirer=self.expirer,
            retention=retention,
            today=self.now.date,
        )

    async def run(
        self, retention: Retention = MONTH, *, apply: bool = True
    ) -> tuple[dict[Archive, Outcome | Kept], GcTally]:
        gc = self.gc(retention)
        results = {r.expiry.archive: r.kept or r.outcome async for r in gc.run(apply=apply)}
        return results, gc.tally

    def collector(self) -> Collector:
        return Collector(new_gc=self.gc, schedule=self.schedule, interval=DAY)

    async def store(self, *regions: Region, days: float = OLD) -> Archive:
        """Store and index an archive that is so many *days* old, of ten bytes."""
        archive = an_archive()
        created = self.now - timedelta(days=days)
        manifest = replace(copies_of(archive).manifest, size_bytes=10, created_at=created)
        for region in regions or (ONE, TWO):
            self.put(archive, manifest, region)
        await self.index.copies(archive)
        return archive

    def put(self, archive: Archive, manifest: Manifest, region: Region) -> None:
        contents = self.storage.contents
        self.storage.manifests[region][archive.key] = manifest
        self.storage.objects[region][manifest.object_key] = bytes(manifest.size_bytes)
        contents.modified_at[manifest.object_key] = manifest.created_at
        contents.modified_at[f"manifests/{archive.key}.json"] = manifest.created_at

    def age_tombstone(self, archive: Archive, age: timedelta) -> None:
        for stored in self.storage.tombstones.values():
            tombstone = stored[archive.key]
            stored[archive.key] = replace(tombstone, expired_at=tombstone.expired_at - age)

    def objects(self, archive: Archive) -> list[str]:
        keys = (key for objects in self.storage.objects.values() for key in objects)
        return [key for key in keys if archive.key in key]


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench()
        await bench.open()
        await scenario(bench)

    asyncio.run(run())
