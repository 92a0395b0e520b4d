"""Tombstones: records of archives that expired. They stay when the archives are built again."""

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from archiver.errors import StorageUnavailable
from archiver.manifest_check import is_tombstone
from archiver.model import Archive, Manifest, Region, Tombstone
from archiver.record_versions import is_newer
from archiver.storage.bucket import Bucket
from archiver.storage.object_keys import tombstone_key
from archiver.storage.region_buckets import RegionBuckets, failures_of
from archiver.telemetry import METRICS, log

A_TOMBSTONE = "a tombstone"


class BucketTombstones:
    """Implements the parts of ``ports.Storage`` that expire archives."""

    def __init__(self, *, buckets: RegionBuckets) -> None:
        self._buckets = buckets

    async def put_tombstone(
        self, archive: Archive, tombstone: Tombstone
    ) -> Mapping[Region, StorageUnavailable]:
        key = tombstone_key(archive)
        body = msgspec.json.format(msgspec.json.encode(tombstone), indent=2)
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.put_small(key, body, A_TOMBSTONE)
        )
        return failures_of(answers)

    async def read_tombstone(self, archive: Archive) -> Tombstone | None:
        answers = await self._buckets.query_patiently(lambda bucket: _read(bucket, archive))
        failures = failures_of(answers)
        if len(failures) == len(answers):
            raise next(iter(failures.values()))
        found = [answer for answer in answers.values() if isinstance(answer, Tombstone)]
        return max(found, key=lambda tombstone: tombstone.expired_at, default=None)

    async def remove_tombstone(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        key = tombstone_key(archive)
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.delete_object(key)
        )
        return failures_of(answers)

    async def withdraw(
        self, archive: Archive, manifest: Manifest
    ) -> Mapping[Region, StorageUnavailable]:
        async def delete(bucket: Bucket) -> None:
            if await bucket.read_manifest(archive) == manifest:
                await bucket.delete_manifest(archive)

        return failures_of(await self._buckets.query_all(self._buckets.regions, delete))

    async def reinstate(self, archive: Archive, manifest: Manifest) -> None:
        async def create(bucket: Bucket) -> Manifest:
            await bucket.require_object(manifest.object_key, manifest.size_bytes)
            return (await bucket.create_manifest(archive, manifest)).manifest

        for region in self._buckets.regions:
            answers = await self._buckets.query_all([region], create)
            if not failures_of(answers) and answers[region] != manifest:
                return


async def _read(bucket: Bucket, archive: Archive) -> Tombstone | None:
    """Return the bucket's tombstone. One that cannot be read is none, and is counted.

    Raises StorageUnavailable, also for one of a later release: its bytes may have to stay.
    """
    body = await bucket.read_small(tombstone_key(archive), A_TOMBSTONE)
    if body is None:
        return None
    if is_newer("tombstone", body):
        raise StorageUnavailable(f"a later release has written the tombstone in {bucket.region}")
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        tombstone = msgspec.json.decode(body, type=Tombstone)
        if is_tombstone(tombstone, archive):
            return tombstone
    METRICS.unreadable.labels(place="tombstones").inc()
    log.error("tombstone.unreadable", region=bucket.region, key=archive.key)
    return None
