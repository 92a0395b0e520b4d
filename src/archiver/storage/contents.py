"""The contents of all regions' buckets, object by object."""

from collections.abc import AsyncGenerator

from archiver.model import Archive, Manifest, Region
from archiver.ports.bucket_contents import StoredObject, UnfinishedUpload
from archiver.storage.object_keys import archives_prefix, manifest_key, manifests_folder
from archiver.storage.region_buckets import RegionBuckets


class RegionalContents:
    """Implements ``ports.bucket_contents.BucketContents``."""

    def __init__(self, *, buckets: RegionBuckets) -> None:
        self._buckets = buckets
        self.regions = buckets.regions

    def iter_manifests(
        self, region: Region, source: str | None = None, *, after: Archive | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        begin = manifest_key(after) if after else None
        listings = self._buckets.bucket(region).listings
        return listings.iter_folder(manifests_folder(source), after=begin)

    def iter_objects(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        return self._buckets.bucket(region).listings.iter_folder(archives_prefix(source))

    def iter_strangers(self, region: Region) -> AsyncGenerator[StoredObject, None]:
        return self._buckets.bucket(region).listings.iter_strangers()

    def iter_uploads(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[UnfinishedUpload, None]:
        return self._buckets.bucket(region).listings.iter_uploads(source)

    async def read_manifest(self, region: Region, archive: Archive) -> Manifest | None:
        return await self._buckets.bucket(region).read_manifest(archive)

    async def delete_object(self, region: Region, object_key: str) -> None:
        await self._buckets.bucket(region).delete_object(object_key)

    async def abort_upload(self, region: Region, upload: UnfinishedUpload) -> None:
        await self._buckets.bucket(region).abort_upload(upload)
