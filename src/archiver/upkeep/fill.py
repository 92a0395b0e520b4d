"""Fills a region: the fleet's workers copy the archives there that only other regions have."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from archiver.errors import (
    PurgeUnfinished,
    StorageUnavailable,
    UnknownSource,
    UnreadableManifest,
)
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import BucketContents
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.copying import Copying
from archiver.upkeep.filled import FOUND, LOST, Filled, Tally
from archiver.upkeep.inventory import Inventory, Listed

WAITING_MAX = 64
"""Tasks of a fill that have not ended: enough for many workers, and a short queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The *region* to fill, and with which archives. A dry run only finds them.

    ``per_minute`` limits how many tasks are created; 0 means no limit.
    """

    region: Region
    selection: Selection
    per_minute: float = 0.0
    dry_run: bool = False

    def selects(self, listed: Listed) -> bool:
        return bool(listed.manifests) and self.selection.may_include(listed.archive)

    def lacks(self, listed: Listed) -> bool:
        """Return whether, by the listings, only other regions have the archive."""
        elsewhere = listed.manifests.keys() - {self.region}
        complete = self.region in listed.manifests and listed.objects.get(self.region)
        return bool(elsewhere) and not complete


class Pace:
    """When events may happen of which there are so many a minute; 0 means no limit."""

    def __init__(self, per_minute: float) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._next_s = 0.0

    def delay_s(self, now_s: float) -> float:
        """Return the seconds from *now_s* to the next event, which then counts as happened."""
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._interval_s
        return at_s - now_s


class Filler:
    """Fills one region once, while the fleet goes on working. ``tally`` shows the progress.

    Nothing but the buckets says what is left to do, so a second run completes an interrupted one.
    Only archives of *sources* get tasks: no worker would take any other.
    """

    def __init__(
        self,
        *,
        contents: BucketContents,
        copying: Copying,
        sources: Collection[str],
        on_filled: Callable[[Filled], None],
        on_progress: Callable[[Tally], None],
    ) -> None:
        self._contents = contents
        self._copying = copying
        self._sources = sources
        self._on_filled = on_filled
        self._on_progress = on_progress
        self._slots = asyncio.Semaphore(WAITING_MAX)
        self.tally = Tally()

    async def run(self, scope: Scope) -> None:
        """Fill the region, and report each archive that it lacked.

        Raises:
            StorageUnavailable: A region did not list its bucket, or the region to fill takes no
                writes.
            EngineUnavailable: The engine did not respond for a minute.
        """
        source = scope.selection.source
        inventory = Inventory(
            contents=self._contents, source=source, on_progress=self._report_listed
        )
        await inventory.survey()
        self.tally.phase, self.tally.done = "copying", 0
        self.tally.total = max(each.manifests for each in inventory.counts.values())
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(self._lacking(inventory, scope)) as archives,
            ):
                async for archive in archives:
                    await self._slots.acquire()
                    group.create_task(self._settle(archive, scope))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _lacking(self, inventory: Inventory, scope: Scope) -> AsyncGenerator[Archive, None]:
        """Yield the archives that the region lacks, at the pace of *scope*."""
        pace = Pace(0 if scope.dry_run else scope.per_minute)
        async with aclosing(inventory.archives()) as archives:
            async for listed in archives:
                selected = scope.selects(listed)
                self.tally.selected += selected
                if selected and scope.lacks(listed):
                    await asyncio.sleep(pace.delay_s(time.monotonic()))
                    yield listed.archive
                elif listed.manifests:
                    self._count_done()

    async def _settle(self, archive: Archive, scope: Scope) -> None:
        try:
            filled = await self._fill(archive, scope)
        finally:
            self._slots.release()
        if filled:
            self.tally.add(filled)
            self._on_filled(filled)
        self._count_done()

    async def _fill(self, archive: Archive, scope: Scope) -> Filled | None:
        """Return what became of *archive*; None if the region has it by now."""
        if archive.source not in self._sources:
            return Filled(archive=archive, outcome=UnknownSource.code)
        try:
            found = await self._copying.find(archive, scope.region)
        except (PurgeUnfinished, UnreadableManifest) as exc:
            return Filled(archive=archive, outcome=exc.code)
        if found.copies is None:
            outcome = StorageUnavailable.code if found.unreachable else LOST
            return Filled(archive=archive, outcome=outcome)
        if scope.region in found.copies.regions:
            return None
        outcome = FOUND
        if not scope.dry_run:
            outcome = await self._copying.copy(archive, found.copies, scope.region)
        size_bytes = found.copies.manifest.size_bytes
        return Filled(archive=archive, outcome=outcome, size_bytes=size_bytes)

    def _report_listed(self, listed: int) -> None:
        self.tally.done = listed
        self._on_progress(self.tally)

    def _count_done(self) -> None:
        self.tally.done += 1
        self._on_progress(self.tally)
