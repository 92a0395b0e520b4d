"""Lists the objects and the unfinished uploads of one bucket."""

from collections.abc import AsyncGenerator

import obstore
from obstore.store import S3Store

from archiver.manifest_check import parse_object_key
from archiver.model import Region
from archiver.ports.bucket_contents import StoredObject, UnfinishedUpload
from archiver.storage.multipart import MultipartUploads
from archiver.storage.object_keys import (
    FOLDERS,
    MANIFESTS,
    PROBE_FOLDER,
    archives_prefix,
    is_probe_key,
    parse_manifest_key,
)
from archiver.storage.s3_errors import translate_errors

PAGE_KEYS = 1000
"""Keys per page of a listing, the most that S3 returns."""


class Listings:
    """Lists one bucket. Every failed request raises StorageUnavailable."""

    def __init__(self, *, store: S3Store, region: Region, uploads: MultipartUploads) -> None:
        self._store = store
        self._region = region
        self._uploads = uploads

    async def iter_folder(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        """Yield the objects below *prefix*, in the server's order.

        With *after*, begin behind this key if the server supports that.
        """
        with translate_errors(self._region, "list its objects"):
            async for page in obstore.list(self._store, prefix, offset=after, chunk_size=PAGE_KEYS):
                for meta in page:
                    yield _stored(meta)

    async def iter_strangers(self) -> AsyncGenerator[StoredObject, None]:
        with translate_errors(self._region, "list its objects"):
            root = await obstore.list_with_delimiter_async(self._store)
        for meta in root["objects"]:
            yield _stored(meta)
        folders = {f"{prefix}/" for prefix in root["common_prefixes"]}
        for folder in sorted(folders.difference(FOLDERS) | {PROBE_FOLDER}):
            async for stored in self.iter_folder(folder):
                if not is_probe_key(stored.object_key):
                    yield stored

    def iter_uploads(self, source: str | None) -> AsyncGenerator[UnfinishedUpload, None]:
        return self._uploads.iter_uploads(archives_prefix(source))


def _stored(meta: "obstore.ObjectMeta") -> StoredObject:
    object_key = meta["path"]
    parse = parse_manifest_key if object_key.startswith(MANIFESTS) else parse_object_key
    return StoredObject(
        object_key=object_key,
        size_bytes=meta["size"],
        modified_at=meta["last_modified"],
        archive=parse(object_key),
    )
