"""Lists the objects and the unfinished uploads of one bucket."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from archiver.manifest_check import parse_object_key
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
from archiver.storage.object_lists import ListedObject, ObjectLists


class Listings:
    """Lists one bucket. Every failed request raises StorageUnavailable."""

    def __init__(self, *, lists: ObjectLists, uploads: MultipartUploads) -> None:
        self._lists = lists
        self._uploads = uploads

    async def iter_folder(
        self, prefix: str, *, after: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        """Yield the objects below *prefix*, in the server's order.

        With *after*, begin behind this key if the server supports that.
        """
        async with aclosing(self._lists.iter_pages(prefix, after=after)) as pages:
            async for page in pages:
                for listed in page.objects:
                    yield _stored(listed)

    async def iter_strangers(self) -> AsyncGenerator[StoredObject, None]:
        folders: set[str] = set()
        async with aclosing(self._lists.iter_pages(delimiter="/")) as pages:
            async for page in pages:
                folders.update(page.folders)
                for listed in page.objects:
                    yield _stored(listed)
        for folder in sorted(folders.difference(FOLDERS) | {PROBE_FOLDER}):
            async for stored in self.iter_folder(folder):
                if not is_probe_key(stored.object_key):
                    yield stored

    def iter_uploads(self, source: str | None) -> AsyncGenerator[UnfinishedUpload, None]:
        return self._uploads.iter_uploads(archives_prefix(source))


def _stored(listed: ListedObject) -> StoredObject:
    object_key = listed.object_key
    parse = parse_manifest_key if object_key.startswith(MANIFESTS) else parse_object_key
    return StoredObject(
        object_key=object_key,
        size_bytes=listed.size_bytes,
        modified_at=listed.modified_at,
        archive=parse(object_key),
    )
