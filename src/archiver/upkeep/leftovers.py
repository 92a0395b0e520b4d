"""Objects and unfinished uploads that no manifest will ever name, and their removal."""

from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from archiver.model import Archive, Region, Tombstone
from archiver.ports.bucket_contents import BucketContents, StoredObject, UnfinishedUpload
from archiver.ports.storage import Storage
from archiver.upkeep.inventory import Listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An old object of *archive* that no manifest names. If it expired, it has a *tombstone*."""

    archive: Archive
    region: Region
    stored: StoredObject
    tombstone: Tombstone | None = None


class Leftovers:
    """Finds and removes what is older than *min_age*: no build is that old, and can still commit.

    Objects of pinned archives stay.

    An object of an archive whose bytes are otherwise lost stays, and so does one of an archive with
    a manifest that cannot be read.
    """

    def __init__(self, *, storage: Storage, contents: BucketContents, min_age: timedelta) -> None:
        self._storage = storage
        self._contents = contents
        self._min_age = min_age

    async def orphans(self, listed: Listed, named: Collection[str]) -> list[Orphan]:
        """Return the old objects in *listed* that are not *named* by a manifest.

        Raises StorageUnavailable.
        """
        orphans = list(self._unnamed(listed, named))
        if not orphans or (tombstone := await self._storage.read_tombstone(listed.archive)) is None:
            return orphans
        return [
            replace(orphan, tombstone=tombstone) if _expired(orphan, tombstone) else orphan
            for orphan in orphans
        ]

    def _unnamed(self, listed: Listed, named: Collection[str]) -> Iterator[Orphan]:
        for region, objects in listed.objects.items():
            for stored in objects:
                if stored.object_key not in named and self._is_old(stored.modified_at):
                    yield Orphan(archive=listed.archive, region=region, stored=stored)

    async def find_orphans(self, listed: Listed) -> list[Orphan]:
        """Return the orphans in *listed*. Reads manifests only if there are several objects.

        Raises StorageUnavailable.
        """
        keys = {each.object_key for objects in listed.objects.values() for each in objects}
        if listed.manifests and len(keys) == 1:
            return []
        named: set[str] = set()
        for region in listed.manifests:
            manifest = await self._contents.read_manifest(region, listed.archive)
            named.update({manifest.object_key} if manifest else keys)
        return await self.orphans(listed, named)

    async def remove(self, orphan: Orphan) -> bool:
        """Delete *orphan*, unless the regions do not all confirm that it is one.

        The object of an expired archive stays: see ``expiry.Expirer``. Raises StorageUnavailable.
        """
        tombstone = await self._storage.read_tombstone(orphan.archive)
        if tombstone and _expired(orphan, tombstone):
            return False
        if await self._storage.read_pin(orphan.archive, certain=True):
            return False
        kept = False
        for region in self._contents.regions:
            manifest = await self._contents.read_manifest(region, orphan.archive)
            if manifest and manifest.object_key == orphan.stored.object_key:
                return False
            kept |= manifest is not None
        if kept and (await self._storage.find(orphan.archive)).copies is None:
            return False
        await self._contents.delete_object(orphan.region, orphan.stored.object_key)
        return True

    async def iter_unfinished(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[UnfinishedUpload, None]:
        async with aclosing(self._contents.iter_uploads(region, source)) as uploads:
            async for upload in uploads:
                if self._is_old(upload.initiated_at):
                    yield upload

    def _is_old(self, moment: datetime) -> bool:
        return moment < datetime.now(UTC) - self._min_age


def _expired(orphan: Orphan, tombstone: Tombstone) -> bool:
    return orphan.stored.object_key == tombstone.object_key
