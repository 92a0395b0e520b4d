"""Removes every trace of an archive from the buckets."""

from collections.abc import Mapping
from contextlib import aclosing, suppress

from archiver.errors import (
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.manifest_check import object_prefix
from archiver.model import Archive, Manifest, Node, Region
from archiver.ports.storage import Listing, Traces
from archiver.storage.bucket import Bucket
from archiver.storage.object_keys import parse_trace, tombstone_key, trace_prefixes
from archiver.storage.pins import BucketPins
from archiver.storage.region_buckets import RegionBuckets, failures_of
from archiver.storage.tombstones import A_TOMBSTONE, BucketTombstones


class BucketPurger:
    """Implements the parts of ``ports.Storage`` that purge archives.

    Every method waits for all regions: a region that is merely slow has traces as well.
    """

    def __init__(
        self, *, buckets: RegionBuckets, pins: BucketPins, tombstones: BucketTombstones
    ) -> None:
        self._buckets = buckets
        self._pins = pins
        self._tombstones = tombstones

    async def traces(self, archive: Archive) -> Traces:
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: _find_traces(bucket, archive)
        )
        pin = tombstone = None
        with suppress(StorageUnavailable):
            pin = await self._pins.read_pin(archive)
            tombstone = await self._tombstones.read_tombstone(archive)
        found = {r: each for r, each in answers.items() if isinstance(each, _Found)}
        return Traces(
            archive=archive,
            regions=tuple(region for region, each in found.items() if each.exists),
            manifests={r: each.manifest for r, each in found.items() if each.manifest},
            size_bytes={r: sum(each.objects.values()) for r, each in found.items()},
            failures=failures_of(answers),
            pin=pin,
            tombstone=tombstone,
        )

    async def list_of(self, source: str, repo: str, node: Node | None = None) -> Listing:
        archives: set[Archive] = set()

        async def collect(bucket: Bucket) -> None:
            for prefix in trace_prefixes(source, repo, node):
                async with aclosing(bucket.iter_objects(prefix)) as objects:
                    async for key, _ in objects:
                        if archive := parse_trace(key):
                            archives.add(archive)

        answers = await self._buckets.query_all(self._buckets.regions, collect)
        return Listing(archives=frozenset(archives), failures=failures_of(answers))

    async def begin_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        marked = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: _void(bucket, archive, purge)
        )
        failures = failures_of(marked)
        emptied = await self._buckets.query_all(
            (region for region in marked if region not in failures),
            lambda bucket: _delete_bytes_and_tombstone(bucket, archive),
        )
        return failures | failures_of(emptied)

    async def end_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: _remove_mark(bucket, archive, purge)
        )
        return failures_of(answers)


class _Found:
    """The content of one bucket for an archive: *objects* by key, with their sizes."""

    def __init__(
        self, *, manifest: Manifest | None, has_record: bool, objects: dict[str, int]
    ) -> None:
        self.manifest, self.objects = manifest, objects
        self.exists = has_record or bool(objects)


async def _find_traces(bucket: Bucket, archive: Archive) -> _Found:
    manifest, has_manifest = None, True
    try:
        manifest = await bucket.read_manifest(archive)
        has_manifest = manifest is not None
    except (PurgeUnfinished, UnreadableManifest):
        pass
    async with aclosing(bucket.iter_objects(object_prefix(archive))) as listing:
        objects = {key: size_bytes async for key, size_bytes in listing}
    has_tombstone = await bucket.read_small(tombstone_key(archive), A_TOMBSTONE) is not None
    return _Found(manifest=manifest, has_record=has_manifest or has_tombstone, objects=objects)


async def _void(bucket: Bucket, archive: Archive, purge: str) -> None:
    """Put a mark in the manifest's place. A bucket over its quota may only take deletions."""
    try:
        await bucket.put_purge_mark(archive, purge)
    except StorageUnavailable:
        await bucket.delete_manifest(archive)


async def _delete_bytes_and_tombstone(bucket: Bucket, archive: Archive) -> None:
    async with aclosing(bucket.iter_objects(object_prefix(archive))) as listing:
        keys = [key async for key, _ in listing]
    for key in (*keys, tombstone_key(archive)):
        await bucket.delete_object(key)


async def _remove_mark(bucket: Bucket, archive: Archive, purge: str) -> None:
    """Remove the mark if it is that of *purge*.

    What another purge or, on a server without create-only writes, a commit has put there stays.
    """
    try:
        await bucket.read_manifest(archive)
    except PurgeUnfinished as exc:
        if exc.purge == purge:
            await bucket.delete_manifest(archive)
    except UnreadableManifest:
        pass
