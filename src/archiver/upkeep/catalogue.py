"""The stored archives, as the manifests of one region describe them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from archiver.access.patterns import matches_any
from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Manifest, Region
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.storage import Storage
from archiver.runtime.tasks import map_in_order
from archiver.upkeep.known_uses import KnownUses

CONCURRENCY = 64
"""Manifests that are read at a time, as in a rebuild of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored archive. ``last_use`` is None unless it was asked for."""

    archive: Archive
    manifest: Manifest
    last_use: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The conditions for archives to list. ``older`` and ``unused`` are least ages.

    Without ``submodules``, archives with submodules are left out.
    """

    source: str | None = None
    submodules: bool = True
    repo: str = "*"
    suffix: str | None = None
    older: timedelta = timedelta(0)
    min_bytes: int = 0
    unused: timedelta | None = None

    def may_include(self, archive: Archive) -> bool:
        """Return whether to read the manifest of *archive*."""
        named = self.suffix in {None, archive.suffix} and matches_any(archive.repo, [self.repo])
        return named and self.shows(archive)

    def shows(self, archive: Archive) -> bool:
        """Return whether a client may learn that *archive* exists, be it by a cursor."""
        return self.submodules or not archive.submodules

    def includes(self, entry: Entry) -> bool:
        now, manifest = datetime.now(UTC), entry.manifest
        old = manifest.created_at <= now - self.older
        used = self.unused and entry.last_use and entry.last_use > now.date() - self.unused
        return old and not used and manifest.size_bytes >= self.min_bytes


class Catalogue:
    """Lists archives in the order of the region that answers first in the configured order."""

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        uses: KnownUses | None = None,
        on_progress: Callable[[int], None] = lambda _read: None,
    ) -> None:
        self._uses = uses
        self._storage = storage
        self._contents = contents
        self._on_progress = on_progress
        self._read = 0
        self.unreadable = 0

    async def entries(self, selection: Selection) -> AsyncGenerator[Entry, None]:
        """Yield the selected archives. Those with an unreadable manifest are only counted.

        Raises StorageUnavailable if no region answers, or if the region fails midway.
        """
        region = await first_region(self._storage)

        async def read(archive: Archive) -> Entry | None:
            try:
                manifest = await self._contents.read_manifest(region, archive)
            except (PurgeUnfinished, UnreadableManifest):
                self.unreadable += 1
                return None
            return self._entry(archive, manifest) if manifest else None

        archives = self._archives(region, selection)
        async with aclosing(map_in_order(archives, read, at_a_time=CONCURRENCY)) as entries:
            async for entry in entries:
                self._read += 1
                self._on_progress(self._read)
                if entry and selection.includes(entry):
                    yield entry

    def _entry(self, archive: Archive, manifest: Manifest) -> Entry:
        created = manifest.created_at.date()
        last_use = self._uses.last_use(archive, created) if self._uses else None
        return Entry(archive=archive, manifest=manifest, last_use=last_use)

    async def _archives(
        self, region: Region, selection: Selection
    ) -> AsyncGenerator[Archive, None]:
        listing = self._storage.iter_archives(selection.source, region=region)
        async with aclosing(listing) as archives:
            async for archive in archives:
                if selection.may_include(archive):
                    yield archive


async def first_region(storage: Storage) -> Region:
    """Return the first region that answers. Raises StorageUnavailable if none does."""
    answers = await storage.check_access()
    for region in storage.regions:
        if answers[region] is None:
            return region
    raise StorageUnavailable("no region lists its bucket")
