"""Compares manifests, objects and the index in all regions, and repairs what can be repaired."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Copies, Region
from archiver.ports.bucket_contents import BucketContents, StoredObject
from archiver.ports.index_entries import IndexStore
from archiver.ports.queue import RepairList
from archiver.ports.storage import Storage
from archiver.runtime.tasks import map_in_order
from archiver.upkeep.archive_check import SETTLING, ArchiveCheck
from archiver.upkeep.byte_check import ByteCheck
from archiver.upkeep.defect import Defect, DefectKind
from archiver.upkeep.index_check import IndexCheck
from archiver.upkeep.inventory import Inventory, Listed
from archiver.upkeep.leftovers import Leftovers, Orphan

CONCURRENCY = 64
"""Archives that are checked at a time, as in a rebuild of the index."""

READ_CONCURRENCY = 4
"""Archives whose bytes are read at a time. More would only share the bandwidth."""

ORPHANS_MAX = 10_000
"""Orphans that one run removes. They are held until the listings end: the page after a removed
object may be another one than before."""


COPIED = (DefectKind.MISSING, DefectKind.DAMAGED, DefectKind.UNCOPIED)
"""Defects that end with a new copy from another region."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Progress of a check. ``archives`` have a manifest in some region.

    ``objects`` and ``size_bytes`` are those of all regions together. ``unanswered`` archives are
    those for which some region did not answer.
    """

    phase: str = "listing"
    done: int = 0
    total: int | None = None
    archives: int = 0
    objects: int = 0
    size_bytes: int = 0
    unanswered: int = 0
    found: Counter[DefectKind] = field(default_factory=Counter)
    repaired: Counter[DefectKind] = field(default_factory=Counter)

    @property
    def remaining(self) -> int:
        return self.found.total() - self.repaired.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The scope of a check: a *source* and a *region*, or all; with *read*, the bytes as well."""

    source: str | None = None
    region: Region | None = None
    read: bool = False
    repair: bool = False

    def includes(self, region: Region | None) -> bool:
        return self.region in {None, region}


class Fsck:
    """Checks the buckets once, while the fleet goes on working. ``tally`` shows the progress."""

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        store: IndexStore,
        repairs: RepairList,
        min_age: timedelta,
        on_progress: Callable[[Tally], None],
        settling: timedelta = SETTLING,
    ) -> None:
        self._storage = storage
        self._contents = contents
        self._store = store
        self._repairs = repairs
        self._on_progress = on_progress
        self._leftovers = Leftovers(storage=storage, contents=contents, min_age=min_age)
        self._archives = ArchiveCheck(storage=storage, contents=contents, settling=settling)
        self._index = IndexCheck(store=store)
        self._bytes = ByteCheck(storage=storage)
        self._orphans: list[Orphan] = []
        self.tally = Tally()

    async def run(self, scope: Scope) -> AsyncGenerator[Defect, None]:
        """Yield every defect in *scope*, and repair it first if the scope says so.

        Raises:
            StorageUnavailable: A region did not list its bucket.
            EngineUnavailable: The index or the repair list cannot be read or written.
        """
        await self._store.prepare()
        phases = (self._check_keys, self._check_uploads, self._check_archives, self._remove_orphans)
        inventory = Inventory(
            contents=self._contents, source=scope.source, on_progress=self._report_listed
        )
        for phase in phases:
            async with aclosing(phase(scope, inventory)) as defects:
                async for defect in defects:
                    if scope.includes(defect.region):
                        self.tally.found[defect.kind] += 1
                        self.tally.repaired[defect.kind] += defect.repaired
                        yield defect

    async def _check_keys(self, scope: Scope, inventory: Inventory) -> AsyncGenerator[Defect, None]:
        for region, stored in await inventory.survey():
            yield _foreign(region, stored)
        counts = inventory.counts.values()
        self.tally.objects = sum(each.objects for each in counts)
        self.tally.size_bytes = sum(each.size_bytes for each in counts)
        self.tally.total = max(each.manifests for each in counts)
        for region in () if scope.source else self._contents.regions:
            async with aclosing(self._contents.iter_strangers(region)) as others:
                async for stored in others:
                    yield _foreign(region, stored)

    async def _check_uploads(
        self, scope: Scope, _inventory: Inventory
    ) -> AsyncGenerator[Defect, None]:
        for region in self._contents.regions:
            unfinished = self._leftovers.iter_unfinished(region, scope.source)
            uploads = [upload async for upload in unfinished]
            for upload in uploads:
                if repair := scope.repair and scope.includes(region):
                    await self._contents.abort_upload(region, upload)
                yield Defect(
                    kind=DefectKind.UNFINISHED,
                    key=upload.object_key,
                    region=region,
                    repaired=repair,
                )

    async def _check_archives(
        self, scope: Scope, inventory: Inventory
    ) -> AsyncGenerator[Defect, None]:
        async def check(listed: Listed) -> Sequence[Defect]:
            return await self._check_archive(listed, scope)

        self.tally.phase = "checking"
        at_a_time = READ_CONCURRENCY if scope.read else CONCURRENCY
        results = map_in_order(inventory.archives(), check, at_a_time=at_a_time)
        async with aclosing(results):
            async for defects in results:
                for defect in defects:
                    yield defect

    async def _check_archive(self, listed: Listed, scope: Scope) -> Sequence[Defect]:
        checked = await self._archives.check(listed)
        archive, copies, answered = listed.archive, checked.copies, checked.answered
        defects = [defect for defect in checked.defects if scope.includes(defect.region)]
        if scope.repair and copies and defects:
            defects = [await self._mend(defect, copies) for defect in defects]
        if scope.read and copies:
            regions = [region for region in copies.regions if scope.includes(region)]
            damaged, read = await self._bytes.check(archive, copies, regions, repair=scope.repair)
            answered &= read
            defects += damaged
        if copies and scope.region is None:
            defects += await self._check_index(archive, copies, scope)
        if checked.named is not None:
            defects += await self._find_orphans(listed, checked.named, scope)
        self._count(listed, answered=answered)
        return defects

    def _count(self, listed: Listed, *, answered: bool) -> None:
        self.tally.archives += bool(listed.manifests)
        self.tally.done = self.tally.archives
        self.tally.unanswered += not answered
        self._on_progress(self.tally)

    async def _mend(self, defect: Defect, copies: Copies) -> Defect:
        """Have the fleet make a missing copy. Leave what an operator has to decide."""
        if defect.kind not in COPIED or defect.archive is None or defect.region is None:
            return defect
        await self._repairs.add(defect.archive, copies.missing_from(self._storage.regions))
        return replace(defect, repaired=True)

    async def _check_index(
        self, archive: Archive, copies: Copies, scope: Scope
    ) -> Sequence[Defect]:
        kind = await self._index.check(archive, copies)
        if kind:  # the archive may be so new that it is indexed only now
            await self._archives.settle(copies.manifest)
            kind = await self._index.check(archive, copies)
        if kind is None:
            return ()
        repaired = scope.repair and await self._index.repair(archive, copies)
        size_bytes = copies.manifest.size_bytes
        return [
            Defect(
                kind=kind,
                key=archive.key,
                size_bytes=size_bytes,
                archive=archive,
                repaired=repaired,
            )
        ]

    async def _find_orphans(
        self, listed: Listed, named: frozenset[str], scope: Scope
    ) -> Sequence[Defect]:
        """Return the orphans that are not removed later. Expired objects are no defects."""
        found: list[Defect] = []
        for orphan in await self._leftovers.orphans(listed, named):
            if orphan.tombstone or not scope.includes(orphan.region):
                continue
            if scope.repair and len(self._orphans) < ORPHANS_MAX:
                self._orphans.append(orphan)
            else:
                found.append(_orphaned(orphan, removed=False))
        return found

    async def _remove_orphans(
        self, _scope: Scope, _inventory: Inventory
    ) -> AsyncGenerator[Defect, None]:
        self.tally.phase, self.tally.done, self.tally.total = "removing", 0, len(self._orphans)
        for orphan in self._orphans:
            removed = False
            try:
                removed = await self._leftovers.remove(orphan)
            except StorageUnavailable:
                self.tally.unanswered += 1
            yield _orphaned(orphan, removed=removed)
            self.tally.done += 1
            self._on_progress(self.tally)

    def _report_listed(self, listed: int) -> None:
        self.tally.done = listed
        self._on_progress(self.tally)


def _foreign(region: Region, stored: StoredObject) -> Defect:
    return Defect(
        kind=DefectKind.FOREIGN,
        key=stored.object_key,
        region=region,
        size_bytes=stored.size_bytes,
    )


def _orphaned(orphan: Orphan, *, removed: bool) -> Defect:
    return Defect(
        kind=DefectKind.ORPHAN,
        key=orphan.stored.object_key,
        region=orphan.region,
        size_bytes=orphan.stored.size_bytes,
        archive=orphan.archive,
        repaired=removed,
    )
