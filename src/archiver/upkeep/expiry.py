"""Expires an archive: it ends in all regions, and leaves a tombstone. Its bytes stay a while."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Manifest, Tombstone
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.storage import Storage
from archiver.purge import Forgetter
from archiver.upkeep.leftovers import Orphan

SAME_DAY = timedelta(days=1)
"""The last use may be by the clock of the server that stored the manifest, around midnight."""


class Kept(StrEnum):
    """Why an archive stays that should expire."""

    PINNED = "pinned"
    REBUILT = "rebuilt"  # after its last use
    PURGED = "purged"  # or being purged, or expired by another run
    DIFFERENT = "different"  # the regions have different manifests
    UNREADABLE = "unreadable"  # a region has a damaged manifest


class Expirer:
    """Expires archives, and removes their bytes after *grace*, when no link leads there any more.

    The manifests go first: what remains is an object without a manifest, which later runs find.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        forgetter: Forgetter,
        grace: timedelta,
    ) -> None:
        self._storage = storage
        self._contents = contents
        self._forget = forgetter.forget
        self.grace = grace

    async def expire(self, archive: Archive, *, last_use: date) -> Tombstone | Kept:
        """Return the tombstone that *archive* left, or why it stays.

        Raises:
            StorageUnavailable: A region did not answer. The archive may exist in some regions only,
                and the next run goes on.
            EngineUnavailable: The index may still lead to the archive. The next run goes on.
        """
        manifest = await self._only_manifest(archive)
        if manifest is None or isinstance(manifest, Kept):
            return manifest or Kept.PURGED
        if manifest.created_at.date() - last_use > SAME_DAY:
            return Kept.REBUILT
        tombstone = Tombstone.of(manifest, expired_at=datetime.now(UTC))
        await self._put_tombstone(archive, tombstone)
        if (actual := await self._only_manifest(archive)) != manifest:
            # A purge began or has ended, unless there are bytes: then another run was quicker.
            if actual is not None or not (await self._storage.traces(archive)).total_bytes:
                await self._storage.remove_tombstone(archive)
            return Kept.PURGED
        if await self._storage.read_pin(archive, certain=True):
            return Kept.PINNED
        failures = await self._storage.withdraw(archive, manifest)
        try:  # one may have been written before the manifests were gone
            pin = await self._storage.read_pin(archive, certain=True)
        except StorageUnavailable:
            await self._storage.reinstate(archive, manifest)
            await self._forget(archive)
            raise
        if pin:
            await self._storage.reinstate(archive, manifest)
        await self._forget(archive)
        if pin:
            return Kept.PINNED
        if failures:
            raise StorageUnavailable(f"these kept the archive: {', '.join(failures)}")
        return tombstone

    async def remove_bytes(self, orphan: Orphan) -> bool:
        """Delete the object of an expired archive; return False if it is still needed.

        The archive is forgotten again first. If the index still led there, because the expiry was
        interrupted, clients may have new links, and the grace period begins again.

        Raises StorageUnavailable or EngineUnavailable.
        """
        if orphan.tombstone is None or not self.is_over(orphan.tombstone):
            return False
        if await self._storage.read_tombstone(orphan.archive) != orphan.tombstone:
            return False
        if await self._storage.read_pin(orphan.archive, certain=True):
            return False
        manifests = [
            await self._contents.read_manifest(region, orphan.archive)
            for region in self._contents.regions
        ]
        if any(each and each.object_key == orphan.stored.object_key for each in manifests):
            return False
        if not any(manifests) and await self._forget(orphan.archive):
            again = replace(orphan.tombstone, expired_at=datetime.now(UTC))
            await self._put_tombstone(orphan.archive, again)
            return False
        await self._contents.delete_object(orphan.region, orphan.stored.object_key)
        return True

    async def _put_tombstone(self, archive: Archive, tombstone: Tombstone) -> None:
        if failures := await self._storage.put_tombstone(archive, tombstone):
            raise StorageUnavailable(f"these took no tombstone: {', '.join(failures)}")

    def is_over(self, tombstone: Tombstone) -> bool:
        """Return whether the grace period is over."""
        return datetime.now(UTC) - tombstone.expired_at > self.grace

    async def _only_manifest(self, archive: Archive) -> Manifest | Kept | None:
        """Return the only manifest of the archive, or why there are several; None without any."""
        try:
            manifests = {
                await self._contents.read_manifest(region, archive)
                for region in self._contents.regions
            }
        except PurgeUnfinished:
            return Kept.PURGED
        except UnreadableManifest:
            return Kept.UNREADABLE
        match [each for each in manifests if each]:
            case []:
                return None
            case [manifest]:
                return manifest
            case _:
                return Kept.DIFFERENT
