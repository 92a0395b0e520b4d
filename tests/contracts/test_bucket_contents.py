"""The contract of ``ports.bucket_contents.BucketContents``."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Archive
from archiver.ports.bucket_contents import BucketContents, StoredObject, UnfinishedUpload
from archiver.ports.storage import Storage
from archiver.storage.regional_storage import RegionalStorage
from archiver.testing import MemoryStorage
from tests.contracts.storage_backends import (
    DATA,
    EAST,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    MemoryBackend,
    S3Backend,
    an_archive,
    store,
    stream,
    use,
)


def contents(storage: Storage) -> BucketContents:
    assert isinstance(storage, RegionalStorage | MemoryStorage)
    return storage.contents


def put(backend: Backend, object_key: str) -> None:
    """Store an object in the first region, as another program might."""
    if isinstance(backend, MemoryBackend):
        backend.storage.objects[EAST][object_key] = b"x"
    else:
        home = cast(S3Backend, backend).home
        path = f"/{home.names[EAST]}/{object_key}"
        assert home.server.request("PUT", path, body=b"x")[0] == 200


def begin_upload(backend: Backend, object_key: str) -> None:
    if isinstance(backend, MemoryBackend):
        upload = UnfinishedUpload(
            object_key=object_key, upload_id=secrets.token_hex(4), initiated_at=datetime.now(UTC)
        )
        backend.storage.contents.uploads[EAST].append(upload)
    else:
        home = cast(S3Backend, backend).home
        path = f"/{home.names[EAST]}/{object_key}"
        assert home.server.request("POST", path, {"uploads": ""})[0] == 200


def is_recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(hours=1)


async def listed(storage: Storage, source: str | None = None) -> list[StoredObject]:
    return [stored async for stored in contents(storage).iter_objects(EAST, source)]


class ContentsContract:
    def test_manifests_and_objects_are_listed_with_their_archives(self, backend: Backend) -> None:
        archive = an_archive(repo=f"repos/{secrets.token_hex(4)} ~x", subdir="a/b")

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            manifests = [
                stored
                async for stored in contents(storage).iter_manifests(EAST, "hgmo")
                if stored.archive == archive
            ]
            assert [stored.object_key for stored in manifests] == [f"manifests/{archive.key}.json"]
            assert manifests[0].size_bytes > 100
            assert is_recent(manifests[0].modified_at)
            (stored,) = [each for each in await listed(storage) if each.archive == archive]
            assert stored.object_key == copies.manifest.object_key
            assert stored.size_bytes == len(DATA)
            assert is_recent(stored.modified_at)
            assert await contents(storage).read_manifest(WEST, archive) == copies.manifest
            assert await contents(storage).read_manifest(WEST, an_archive()) is None

        use(backend, scenario)

    def test_a_listing_behind_an_archive_has_all_that_follow_it(self, backend: Backend) -> None:
        repo = f"repos/{secrets.token_hex(4)}"

        async def scenario(storage: Storage) -> None:
            archives = [an_archive(repo=repo) for _ in range(3)]
            for archive in archives:
                await store(storage, archive)
            first, *others = sorted(archives, key=lambda archive: archive.key)
            listing = contents(storage).iter_manifests(EAST, "hgmo", after=first)
            listed = [stored.archive async for stored in listing]
            assert [archive for archive in listed if archive in others] == others

        use(backend, scenario)

    def test_objects_of_abandoned_uploads_are_listed_and_deleted(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            keys = [each.object_key for each in await listed(storage) if each.archive == archive]
            assert keys == [upload.object_key]
            for _ in range(2):
                await contents(storage).delete_object(EAST, upload.object_key)
            assert [each for each in await listed(storage) if each.archive == archive] == []
            left = [each.archive async for each in contents(storage).iter_objects(WEST)]
            assert archive in left

        use(backend, scenario)

    def test_a_listing_can_be_limited_to_a_source(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, archive)
            assert archive in [each.archive for each in await listed(storage, "hgmo")]
            assert await listed(storage, "hgm") == []
            assert [each async for each in contents(storage).iter_manifests(EAST, "hgm")] == []
            assert [each async for each in contents(storage).iter_uploads(EAST, "hgm")] == []

        use(backend, scenario)

    def test_keys_that_archiver_does_not_write_name_no_archive(self, backend: Backend) -> None:
        archive = an_archive()
        inside = [
            "archives/notes.txt",
            f"archives/{archive.key}/x.zip",
            f"archives/{archive.key}/a1/b/x.zip",
        ]
        outside = ["notes.txt", f"logs/{secrets.token_hex(4)}/1.txt", "probes/readme"]

        async def scenario(storage: Storage) -> None:
            await storage.check_writable()
            for object_key in (*inside, *outside):
                put(backend, object_key)
            found = [each.object_key for each in await listed(storage) if not each.archive]
            assert set(inside) <= set(found)
            strangers = [each async for each in contents(storage).iter_strangers(EAST)]
            assert {each.archive for each in strangers} == {None}
            keys = {each.object_key for each in strangers}
            assert set(outside) <= keys
            assert not any(key.startswith(("archives/", "manifests/", "probes/0")) for key in keys)
            for object_key in (*inside, *outside):
                await contents(storage).delete_object(EAST, object_key)

        use(backend, scenario)

    def test_unfinished_uploads_are_listed_and_aborted(self, backend: Backend) -> None:
        object_key = f"archives/{an_archive().key}/a1-1/x.zip"

        async def scenario(storage: Storage) -> None:
            begin_upload(backend, object_key)
            (upload,) = [each async for each in contents(storage).iter_uploads(EAST)]
            assert upload.object_key == object_key
            assert is_recent(upload.initiated_at)
            assert [each async for each in contents(storage).iter_uploads(WEST)] == []
            for _ in range(2):
                await contents(storage).abort_upload(EAST, upload)
            assert [each async for each in contents(storage).iter_uploads(EAST, "hgmo")] == []

        use(backend, scenario)

    @pytest.mark.parametrize(
        "ask",
        (
            lambda storage: anext(contents(storage).iter_manifests(EAST)),
            lambda storage: anext(contents(storage).iter_objects(EAST)),
            lambda storage: anext(contents(storage).iter_strangers(EAST)),
            lambda storage: anext(contents(storage).iter_uploads(EAST)),
            lambda storage: contents(storage).read_manifest(EAST, an_archive()),
            lambda storage: contents(storage).delete_object(EAST, "archives/x"),
        ),
    )
    def test_a_region_that_fails_raises(
        self, backend: Backend, ask: Callable[[Storage], Awaitable[Archive]]
    ) -> None:
        async def scenario(storage: Storage) -> None:
            backend.take_down(EAST)
            with pytest.raises(StorageUnavailable):
                await ask(storage)

        use(backend, scenario)


class TestMemoryContents(InMemory, ContentsContract): ...


class TestSeaweedFSContents(InSeaweedFS, ContentsContract): ...


class TestRcloneContents(InRclone, ContentsContract): ...
