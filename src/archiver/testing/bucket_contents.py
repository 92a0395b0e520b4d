"""The contents of buckets in memory."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime

from archiver.errors import PurgeUnfinished, StorageUnavailable, UnreadableManifest
from archiver.manifest_check import ARCHIVES, parse_object_key
from archiver.model import Archive, Manifest, Region, parse_key
from archiver.ports.bucket_contents import StoredObject, UnfinishedUpload

MANIFEST_BYTES = 1000


class MemoryContents:
    """Implements ``BucketContents`` with the dictionaries of a ``MemoryStorage``.

    Objects are as new as the storage, except for those with a time in ``modified_at``. ``uploads``
    are the unfinished ones.
    """

    def __init__(
        self,
        *,
        objects: Mapping[Region, dict[str, bytes]],
        manifests: Mapping[Region, dict[str, Manifest]],
        down: set[Region],
        unreadable: set[Archive],
        marks: Mapping[Region, dict[str, str]],
    ) -> None:
        self.regions: tuple[Region, ...] = tuple(objects)
        self.modified_at: dict[str, datetime] = {}
        self.uploads: dict[Region, list[UnfinishedUpload]] = {r: [] for r in self.regions}
        self._opened_at = datetime.now(UTC)
        self._objects = objects
        self._manifests = manifests
        self._down = down
        self._unreadable = unreadable
        self._marks = marks

    async def iter_manifests(
        self, region: Region, source: str | None = None, *, after: Archive | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        self._require_up(region)
        begin = f"manifests/{after.key}.json" if after else ""
        names = {f"manifests/{key}.json": parse_key(key) for key in self._manifests[region]}
        for name in sorted(names):
            archive = names[name]
            if archive and source in {None, archive.source} and name > begin:
                yield self._stored(name, MANIFEST_BYTES, archive)

    async def iter_objects(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        folder = f"{ARCHIVES}v1/{source}/" if source else ARCHIVES
        for object_key in self._keys(region):
            if object_key.startswith(folder):
                yield self._object(region, object_key)

    async def iter_strangers(self, region: Region) -> AsyncGenerator[StoredObject, None]:
        for object_key in self._keys(region):
            if not object_key.startswith(ARCHIVES):
                yield self._object(region, object_key)

    async def iter_uploads(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[UnfinishedUpload, None]:
        self._require_up(region)
        folder = f"{ARCHIVES}v1/{source}/" if source else ARCHIVES
        for upload in tuple(self.uploads[region]):
            if upload.object_key.startswith(folder):
                yield upload

    async def read_manifest(self, region: Region, archive: Archive) -> Manifest | None:
        self._require_up(region)
        if archive.key in self._marks[region]:
            raise PurgeUnfinished("a purge of the archive has begun and has not ended")
        if archive in self._unreadable:
            raise UnreadableManifest(f"the manifest in {region} is damaged")
        return self._manifests[region].get(archive.key)

    async def delete_object(self, region: Region, object_key: str) -> None:
        self._require_up(region)
        self._objects[region].pop(object_key, None)

    async def abort_upload(self, region: Region, upload: UnfinishedUpload) -> None:
        self._require_up(region)
        if upload in self.uploads[region]:
            self.uploads[region].remove(upload)

    def _keys(self, region: Region) -> Sequence[str]:
        self._require_up(region)
        return sorted(self._objects[region])

    def _object(self, region: Region, object_key: str) -> StoredObject:
        size_bytes = len(self._objects[region][object_key])
        return self._stored(object_key, size_bytes, parse_object_key(object_key))

    def _stored(self, object_key: str, size_bytes: int, archive: Archive | None) -> StoredObject:
        return StoredObject(
            object_key=object_key,
            size_bytes=size_bytes,
            modified_at=self.modified_at.get(object_key, self._opened_at),
            archive=archive,
        )

    def _require_up(self, region: Region) -> None:
        if region in self._down:
            raise StorageUnavailable(f"{region} does not answer")
