"""Expires archives that the settings no longer keep, and removes the bytes of expired ones."""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from archiver.errors import (
    ArchiverError,
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.model import Archive, Tombstone
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.last_uses import LastUses
from archiver.ports.storage import Storage
from archiver.retention import Retention
from archiver.runtime.tasks import map_in_order
from archiver.telemetry import METRICS, log
from archiver.upkeep.expiry import Expirer, Kept
from archiver.upkeep.expiry_plan import Excess, Expiry, ExpiryPlan
from archiver.upkeep.inventory import Inventory, Listed
from archiver.upkeep.known_uses import read_uses
from archiver.upkeep.leftovers import Leftovers, Orphan

CONCURRENCY = 16
"""Archives that expire at a time. Each takes some twenty requests."""

BYTES_MAX = 10_000
"""Expired objects that one run removes. They are held until the listings end."""

NO_AGE = timedelta(0)


class Outcome(StrEnum):
    """The result for an archive that should expire."""

    PLANNED = "planned"
    EXPIRED = "expired"
    KEPT = "kept"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An archive that should expire, and the outcome: ``kept`` is why it stays."""

    expiry: Expiry
    outcome: Outcome
    kept: Kept | None = None


@dataclass(slots=True, kw_only=True)
class GcTally:
    """Progress and results of a run.

    ``planned`` archives should expire; ``removed`` objects of archives that expired earlier are
    gone. Sizes are in bytes, in all regions together.
    """

    phase: str = "listing"
    done: int = 0
    total: int | None = None
    archives: int = 0
    planned: int = 0
    planned_bytes: int = 0
    expired: int = 0
    kept: int = 0
    unanswered: int = 0
    removed: int = 0
    removed_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    excesses: list[Excess] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the next run may wait: nothing failed, and no bytes are left to be removed."""
        return not (self.unanswered or self.expired or self.waiting)


class Gc:
    """Runs once, while the fleet goes on working. ``tally`` shows the progress."""

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        uses: LastUses,
        expirer: Expirer,
        retention: Retention,
        on_progress: Callable[[GcTally], None] = lambda _tally: None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._storage = storage
        self._contents = contents
        self._uses = uses
        self._expirer = expirer
        self._retention = retention
        self._on_progress = on_progress
        self._today = today
        self._leftovers = Leftovers(storage=storage, contents=contents, min_age=NO_AGE)
        self._orphans: list[Orphan] = []
        self.tally = GcTally()

    async def run(self, *, apply: bool) -> AsyncGenerator[Result, None]:
        """Yield every archive that should expire. With *apply*, expire it first.

        Raises:
            StorageUnavailable: A region did not list its bucket.
            EngineUnavailable: It is unknown when archives were last used.
        """
        plan = await self._plan()
        expiries = list(plan.expiries())
        self.tally.excesses = list(plan.excesses())
        self.tally.planned = len(expiries)
        self.tally.planned_bytes = sum(expiry.size_bytes for expiry in expiries)
        self._begin("expiring", len(expiries))
        work = self._expire if apply else self._leave
        async with aclosing(
            map_in_order(_iterate(expiries), work, at_a_time=CONCURRENCY)
        ) as results:
            async for result in results:
                self._advance()
                yield result
        await self._remove_bytes(apply=apply)

    async def _plan(self) -> ExpiryPlan:
        today = self._today()
        uses = await read_uses(self._uses, today=today)
        pinned = await self._pinned()
        plan = ExpiryPlan(retention=self._retention, regions=self._contents.regions, today=today)
        inventory = Inventory(contents=self._contents, on_progress=self._report_listed)
        await inventory.survey()
        self._begin("choosing", max(each.manifests for each in inventory.counts.values()))
        async with aclosing(inventory.archives()) as archives:
            async for listed in archives:
                unnamed = await self._find_bytes(listed)
                if listed.manifests:
                    archive = listed.archive
                    created = min(each.modified_at for each in listed.manifests.values()).date()
                    last_use = uses.last_use(archive, created)
                    plan.add(
                        archive,
                        sizes=self._sizes(listed, unnamed),
                        last_use=last_use,
                        pinned=archive in pinned,
                    )
                    self.tally.archives += 1
                    self._advance()
        return plan

    async def _pinned(self) -> Collection[Archive]:
        listing = await self._storage.list_pinned()
        if listing.failures:
            raise StorageUnavailable(
                f"these did not list their pins: {', '.join(listing.failures)}"
            )
        return listing.archives

    def _sizes(self, listed: Listed, unnamed: Collection[str]) -> list[int]:
        """Return the bytes of the archive in each region. What no manifest names is left out."""
        return [
            sum(
                each.size_bytes
                for each in listed.objects.get(region, ())
                if each.object_key not in unnamed
            )
            for region in self._contents.regions
        ]

    async def _find_bytes(self, listed: Listed) -> Collection[str]:
        """Collect objects of archives that expired earlier. Return all that no manifest names."""
        try:
            orphans = await self._leftovers.find_orphans(listed)
        except (PurgeUnfinished, UnreadableManifest):
            return ()
        if len(self._orphans) < BYTES_MAX:
            self._orphans += [orphan for orphan in orphans if orphan.tombstone]
        return {orphan.stored.object_key for orphan in orphans}

    async def _leave(self, expiry: Expiry) -> Result:
        return Result(expiry=expiry, outcome=Outcome.PLANNED)

    async def _expire(self, expiry: Expiry) -> Result:
        try:
            left = await self._expirer.expire(expiry.archive, last_use=expiry.last_use)
        except StorageUnavailable as exc:
            _log_left(expiry.archive, exc)
            self.tally.unanswered += 1
            return Result(expiry=expiry, outcome=Outcome.UNANSWERED)
        if isinstance(left, Kept):
            self.tally.kept += 1
            log.info("gc.archive_kept", key=expiry.archive.key, reason=left)
            return Result(expiry=expiry, outcome=Outcome.KEPT, kept=left)
        self.tally.expired += 1
        _report(expiry, left)
        return Result(expiry=expiry, outcome=Outcome.EXPIRED)

    async def _remove_bytes(self, *, apply: bool) -> None:
        """Remove the objects of archives that expired earlier, if their grace period is over."""
        self._begin("removing", len(self._orphans))
        for orphan in self._orphans:
            size_bytes, removed = orphan.stored.size_bytes, False
            if apply:
                try:
                    removed = await self._expirer.remove_bytes(orphan)
                except StorageUnavailable as exc:
                    _log_left(orphan.archive, exc)
                    self.tally.unanswered += 1
            if removed:
                METRICS.expired_bytes.inc(size_bytes)
                self.tally.removed += 1
                self.tally.removed_bytes += size_bytes
            else:
                self.tally.waiting += 1
                self.tally.waiting_bytes += size_bytes
            self._advance()

    def _begin(self, phase: str, total: int) -> None:
        self.tally.phase, self.tally.done, self.tally.total = phase, 0, total

    def _advance(self) -> None:
        self.tally.done += 1
        self._on_progress(self.tally)

    def _report_listed(self, listed: int) -> None:
        self.tally.done = listed
        self._on_progress(self.tally)


async def _iterate(expiries: Collection[Expiry]) -> AsyncGenerator[Expiry, None]:
    for expiry in expiries:
        yield expiry


def _report(expiry: Expiry, tombstone: Tombstone) -> None:
    METRICS.expired.labels(source=expiry.archive.source, reason=expiry.reason).inc()
    log.info(
        "archive.expired",
        key=tombstone.key,
        sha256=tombstone.sha256,
        size_bytes=tombstone.size_bytes,
        reason=expiry.reason,
        last_use=expiry.last_use.isoformat(),
    )


def _log_left(archive: Archive, failure: ArchiverError) -> None:
    log.warning("gc.archive_left", key=archive.key, reason=failure.message, **failure.log_fields)
