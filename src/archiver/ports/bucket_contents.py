"""The contents of each region's bucket, object by object, for housekeeping."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import Archive, Manifest, Region


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as a listing shows it: a manifest, the bytes of an archive, or something else.

    ``archive`` is the one that the key names. It is None for a key that Archiver does not write.
    """

    object_key: str
    size_bytes: int
    modified_at: datetime
    archive: Archive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted."""

    object_key: str
    upload_id: str
    initiated_at: datetime


class BucketContents(Protocol):
    """The contents of one bucket per region. ``regions`` are in the configured order.

    Every method raises StorageUnavailable if the region fails. Servers list keys in different
    orders: most by their bytes, some folder by folder.
    """

    regions: tuple[Region, ...]

    def iter_manifests(
        self, region: Region, source: str | None = None, *, after: Archive | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        """Yield the objects in the folder of manifests: all, or those of *source*.

        With *after*, a server that supports it begins behind the manifest of this archive, in its
        own order. Others begin with the first object.
        """

    def iter_objects(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        """Yield the objects in the folder of archives: all, or those of *source*."""

    def iter_strangers(self, region: Region) -> AsyncGenerator[StoredObject, None]:
        """Yield the objects outside of these folders that Archiver does not write."""

    def iter_uploads(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield the unfinished uploads of archives: all, or those of *source*."""

    async def read_manifest(self, region: Region, archive: Archive) -> Manifest | None:
        """Return the region's manifest of *archive*, or None if it has none.

        Raises:
            UnreadableManifest: The manifest is damaged.
        """

    async def delete_object(self, region: Region, object_key: str) -> None:
        """Delete an object, if it exists. The caller knows that no manifest names it."""

    async def abort_upload(self, region: Region, upload: UnfinishedUpload) -> None:
        """Abort *upload*, unless it has ended."""
