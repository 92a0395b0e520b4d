"""The stored archives page by page: each page costs a bounded number of requests."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.last_uses import LastUses
from archiver.ports.storage import Storage
from archiver.runtime.tasks import map_in_order
from archiver.upkeep.catalogue import Entry, Selection, first_region
from archiver.upkeep.known_uses import UseLookup
from archiver.upkeep.manifest_keys import Cursor, Order, UnsortedListing, iter_behind

CONCURRENCY = 16
"""Manifests that are read at a time. Hits share the connections to the region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many manifests may be listed for one page, 1000 per request, and how many read."""

    keys: int = 10_000
    read: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Selected archives, and the place behind which the next page begins: None at the end.

    A page may have fewer entries than wanted, or none, although there are more. ``unreadable``
    counts the manifests that cannot be read.
    """

    entries: Sequence[Entry]
    following: Cursor | None
    unreadable: int = 0


class CataloguePages:
    """Lists the first region that answers.

    A server that lists in the order of folders, such as rclone, lists all archives for each page
    but the first.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        contents: BucketContents,
        uses: LastUses,
        bounds: Bounds | None = None,
    ) -> None:
        self._uses = uses
        self._storage = storage
        self._contents = contents
        self._bounds = bounds or Bounds()

    async def page(self, selection: Selection, *, after: Cursor | None = None, limit: int) -> Page:
        """Return up to *limit* selected archives behind *after*.

        Raises StorageUnavailable; EngineUnavailable only if the last use matters to *selection*.
        """
        today, required = datetime.now(UTC).date(), selection.unused is not None
        uses = UseLookup(uses=self._uses, today=today, required=required)
        region = await first_region(self._storage)
        for order in (Order.FOLDERS,) if after and after.in_folders else Order:
            reading = _Reading(self._contents, region, selection, uses, self._bounds)
            with suppress(UnsortedListing):
                return await reading.page(after.archive if after else None, limit, order)
        raise StorageUnavailable(f"{region} lists its manifests in an unknown order")


class _Reading:
    """Reads one page. ``_last`` is the last archive that was listed, None at the end.

    It is one that may be shown, unless a whole page has none of them.
    """

    def __init__(
        self,
        contents: BucketContents,
        region: Region,
        selection: Selection,
        uses: UseLookup,
        bounds: Bounds,
    ) -> None:
        self._uses = uses
        self._contents = contents
        self._region = region
        self._selection = selection
        self._bounds = bounds
        self._last: Archive | None = None
        self._unreadable = 0

    async def page(self, after: Archive | None, limit: int, order: Order) -> Page:
        found: list[Entry] = []
        archives = self._archives(after, order)
        results = map_in_order(archives, self._read, at_a_time=CONCURRENCY)
        async with aclosing(results) as entries:
            async for entry in entries:
                if entry:
                    found.append(entry)
                if entry and len(found) == limit:
                    return self._page(found, entry.archive, order)
        return self._page(found, self._last, order)

    def _page(self, found: Sequence[Entry], last: Archive | None, order: Order) -> Page:
        in_folders = order is Order.FOLDERS
        following = Cursor(archive=last, in_folders=in_folders) if last else None
        return Page(entries=found, following=following, unreadable=self._unreadable)

    async def _archives(self, after: Archive | None, order: Order) -> AsyncGenerator[Archive, None]:
        """Yield the archives that may be selected, up to the bounds of a page."""
        source, listed, chosen, shown = self._selection.source, 0, 0, False
        behind = iter_behind(self._contents, self._region, source, after, order=order)
        async with aclosing(behind) as archives:
            async for archive in archives:
                listed += 1
                if self._selection.shows(archive) or not shown:
                    self._last, shown = archive, self._selection.shows(archive)
                if self._selection.may_include(archive):
                    chosen += 1
                    yield archive
                if listed == self._bounds.keys or chosen == self._bounds.read:
                    return
        self._last = None

    async def _read(self, archive: Archive) -> Entry | None:
        try:
            manifest = await self._contents.read_manifest(self._region, archive)
        except (PurgeUnfinished, UnreadableManifest):
            self._unreadable += 1
            return None
        if manifest is None:
            return None
        last_use = await self._uses.last_use(archive, manifest.created_at.date())
        entry = Entry(archive=archive, manifest=manifest, last_use=last_use)
        return entry if self._selection.includes(entry) else None
