"""All that the regions list of each archive, without holding all keys.

The listings of manifests and of objects of every region are merged, tree by tree. A *tree* is all
archives of one node and subdir. No key of a tree begins with the key of another, so the listings of
manifests and of objects have the same order of trees, although not the same order of archives.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import BucketContents, StoredObject

Objects: TypeAlias = AsyncGenerator[StoredObject, None]
Trees: TypeAlias = AsyncGenerator[tuple[str, list[StoredObject]], None]

PROGRESS_INTERVAL = 100
"""Objects between two reports of the progress of a survey."""

Rank: TypeAlias = Callable[[str], list[str]]
"""A key by which trees can be sorted."""


def by_bytes(tree: str) -> list[str]:
    """The order in which S3 lists keys."""
    return [tree]


def by_folder(tree: str) -> list[str]:
    """The order of file systems, and so of rclone."""
    return tree.split("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One archive in the listings: its manifests, and the objects that can have its bytes."""

    archive: Archive
    manifests: Mapping[Region, StoredObject]
    objects: Mapping[Region, Sequence[StoredObject]]


@dataclass(slots=True, kw_only=True)
class Counts:
    """The contents of one region, as counted by a survey."""

    manifests: int = 0
    objects: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Listing:
    """One listing of one region."""

    region: Region
    of_manifests: bool
    open: Callable[[], Objects]


@dataclass(slots=True)
class _Stream:
    """A listing that is being read: ``objects`` belong to ``tree``, which is empty at the end."""

    listing: _Listing
    trees: Trees
    rank: Rank
    tree: str = ""
    objects: list[StoredObject] = field(default_factory=list)

    async def advance(self) -> None:
        before = self.tree
        following: tuple[str, list[StoredObject]] | None = await anext(self.trees, None)
        self.tree, self.objects = following or ("", [])
        if self.tree and self.rank(self.tree) <= self.rank(before):
            region = self.listing.region
            raise StorageUnavailable(f"{region} changed the order of its keys during the listing")


class Inventory:
    """Lists the archives of all regions, or those of *source*. A survey comes first.

    Raises StorageUnavailable if a region does not list its bucket to the end.
    """

    def __init__(
        self,
        *,
        contents: BucketContents,
        source: str | None = None,
        on_progress: Callable[[int], None] = lambda _listed: None,
    ) -> None:
        self._on_progress = on_progress
        self._listings = [
            _Listing(region, of_manifests, partial(iterate, region, source))
            for region in contents.regions
            for of_manifests, iterate in (
                (True, contents.iter_manifests),
                (False, contents.iter_objects),
            )
        ]
        self._ranks = [by_bytes, by_folder]
        self.counts = {region: Counts() for region in contents.regions}

    async def survey(self) -> Sequence[tuple[Region, StoredObject]]:
        """Count everything, and learn the order of the listings. Return the foreign objects.

        Without this pass, archives would seem lost where a server lists in an unexpected order.
        """
        foreign: list[tuple[Region, StoredObject]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for listing in self._listings:
                    group.create_task(self._survey(listing, foreign))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        return foreign

    async def _survey(self, listing: _Listing, foreign: list[tuple[Region, StoredObject]]) -> None:
        tree = ""
        async with aclosing(listing.open()) as objects:
            async for stored in objects:
                if stored.archive is None:
                    foreign.append((listing.region, stored))
                elif (current := _tree(stored.archive)) != tree:
                    self._ranks = [r for r in self._ranks if r(tree) < r(current)]
                    tree = current
                self._count(listing, stored)

    def _count(self, listing: _Listing, stored: StoredObject) -> None:
        counts = self.counts[listing.region]
        if listing.of_manifests:
            counts.manifests += stored.archive is not None
        elif stored.archive:
            counts.objects += 1
            counts.size_bytes += stored.size_bytes
        if not (counts.manifests + counts.objects) % PROGRESS_INTERVAL:
            self._on_progress(sum(each.manifests + each.objects for each in self.counts.values()))

    async def archives(self) -> AsyncGenerator[Listed, None]:
        """Yield each archive of which a region has a manifest or an object.

        Servers that list in different orders, or in an unknown one, are sorted in memory.
        """
        rank = self._ranks[0] if self._ranks else by_bytes
        group = _by_tree if self._ranks else _sorted_by_tree
        async with AsyncExitStack() as stack:
            streams = []
            for listing in self._listings:
                objects = await stack.enter_async_context(aclosing(listing.open()))
                trees = await stack.enter_async_context(aclosing(group(objects)))
                streams.append(_Stream(listing, trees, rank))
            for stream in streams:
                await stream.advance()
            while waiting := [stream for stream in streams if stream.tree]:
                tree = min((stream.tree for stream in waiting), key=rank)
                found = [stream for stream in waiting if stream.tree == tree]
                for listed in _iter_archives(found):
                    yield listed
                for stream in found:
                    await stream.advance()


async def _by_tree(objects: Objects) -> Trees:
    """Yield each tree with its objects. Keys that name no archive are left out."""
    tree, found = "", list[StoredObject]()
    async for stored in objects:
        if stored.archive is None:
            continue
        if (current := _tree(stored.archive)) != tree:
            if found:
                yield tree, found
            tree, found = current, []
        found.append(stored)
    if found:
        yield tree, found


async def _sorted_by_tree(objects: Objects) -> Trees:
    trees: dict[str, list[StoredObject]] = {}
    async for stored in objects:
        if stored.archive:
            trees.setdefault(_tree(stored.archive), []).append(stored)
    for tree in sorted(trees):
        yield tree, trees.pop(tree)


def _tree(archive: Archive) -> str:
    return archive.key.rpartition("/")[0]


def _iter_archives(found: Iterable[_Stream]) -> Iterator[Listed]:
    """Yield the archives of one tree."""
    manifests: dict[Archive, dict[Region, StoredObject]] = {}
    objects: dict[Archive, dict[Region, list[StoredObject]]] = {}
    for stream in found:
        region = stream.listing.region
        for stored in stream.objects:
            if stored.archive is None:
                continue
            own = manifests.setdefault(stored.archive, {})
            others = objects.setdefault(stored.archive, {})
            if stream.listing.of_manifests:
                own[region] = stored
            else:
                others.setdefault(region, []).append(stored)
    for archive, own in manifests.items():
        yield Listed(archive=archive, manifests=own, objects=objects[archive])
