"""What ``ports.Storage`` promises: of the fake, of S3 as it should be, and of S3 as it may be."""

import asyncio
import hashlib
import secrets
from dataclasses import replace

import pytest

from archiver.errors import EngineUnavailable, LeaseLost, SourceTimeout
from archiver.model import Copies
from archiver.ports.storage import Commit, Storage
from tests.contracts.stands import (
    DATA,
    EAST,
    LARGE,
    NOTHING,
    ODD_NAMES,
    SOURCE_URL,
    WEST,
    InMemory,
    InRclone,
    InSeaweedFS,
    Stand,
    an_archive,
    kept,
    listed,
    store,
    stream,
    taken,
    use,
    verified,
)
from tests.parts.s3 import REGIONS


class StorageContract:
    def test_an_archive_is_found_once_it_is_committed_and_not_before(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            assert (await storage.find(archive)).copies is None
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert (await storage.find(archive)).copies is None
            copies = await storage.commit(
                Commit(
                    archive=archive, upload=upload, verified=verified(DATA), source_url=SOURCE_URL
                ),
                prove_lease=kept,
            )
            assert (await storage.find(archive)).copies == copies
            assert copies.regions == storage.regions == REGIONS

        use(stand, scenario)

    def test_a_manifest_says_what_was_verified_and_where_it_came_from(self, stand: Stand) -> None:
        archive = an_archive(subdir="testing")
        manifest = use(stand, lambda storage: store(storage, archive)).manifest
        assert manifest.key == archive.key
        assert manifest.node == archive.node
        assert (manifest.sha256, manifest.size_bytes) == (
            hashlib.sha256(DATA).hexdigest(),
            len(DATA),
        )
        assert (manifest.root, manifest.source_url) == ("ash-012345", SOURCE_URL)
        assert manifest.links_outside == 2
        assert manifest.created_at.tzinfo is not None
        assert stand.objects(archive) == {region: [manifest.object_key] for region in REGIONS}
        assert manifest.object_key.endswith(f"/{archive.file_name}")

    def test_the_first_manifest_wins_and_the_later_bytes_are_forgotten(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            later = await storage.upload(archive, stream(b"later"), attempt="a2")
            first = await store(storage, archive, attempt="a1")
            assert first == await storage.commit(
                Commit(
                    archive=archive,
                    upload=later,
                    verified=verified(b"later"),
                    source_url=SOURCE_URL,
                ),
                prove_lease=kept,
            )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(stand, scenario).manifest
        assert stand.objects(archive) == {region: [first.object_key] for region in REGIONS}

    @pytest.mark.parametrize("attempt", ("a1", "a2"))
    def test_uploads_of_one_archive_do_not_overwrite_each_other(
        self, stand: Stand, attempt: str
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive, attempt="a1")
            other = await storage.upload(archive, stream(b"other"), attempt=attempt)
            await storage.discard(other)
            assert (await storage.find(archive)).copies == copies
            return storage.presign(copies, WEST, method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (0, 1, LARGE))
    def test_a_presigned_url_gives_the_very_bytes(self, stand: Stand, size_bytes: int) -> None:
        data = secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> list[str]:
            copies = await store(storage, an_archive(), data)
            return [storage.presign(copies, region, method="GET") for region in REGIONS]

        for url in use(stand, scenario):
            assert stand.download(url) == data

    def test_a_url_for_another_method_or_with_another_signature_is_refused(
        self, stand: Stand
    ) -> None:
        async def scenario(storage: Storage) -> tuple[str, str]:
            copies = await store(storage, an_archive())
            return (
                storage.presign(copies, EAST, method="HEAD"),
                storage.presign(copies, EAST, method="GET"),
            )

        for_head, for_get = use(stand, scenario)
        assert stand.download(for_get) == DATA
        flipped = for_get[:-1] + ("0" if for_get[-1] != "0" else "1")
        for url in (for_head, flipped):
            with pytest.raises(PermissionError):
                stand.download(url)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_places_like_any_other(self, stand: Stand, name: str) -> None:
        archive, other = an_archive(subdir=name), an_archive(repo=name)

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive)
            assert (await storage.find(archive)).copies == copies
            assert (await storage.find(other)).copies is None
            return storage.presign(await store(storage, other, b"other"), EAST, method="GET")

        assert stand.download(use(stand, scenario)) == b"other"

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_stream_that_fails_leaves_nothing_and_says_why(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, failure = an_archive(), SourceTimeout("the host fell silent")

        async def scenario(storage: Storage) -> None:
            with pytest.raises(SourceTimeout) as raised:
                await storage.upload(an_archive(), stream(bytes(size_bytes), failure), attempt="a1")
            assert raised.value is failure

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_a_discarded_upload_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            await storage.discard(upload)
            await storage.discard(upload)

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_lost_the_lease_commits_nothing_and_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(DATA),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=taken,
                )
            assert (await storage.find(archive)).copies is None

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_lost_the_lease_takes_nothing_from_who_has_it(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            late = await storage.upload(archive, stream(b"late"), attempt="a1")
            first = await store(storage, archive, attempt="a2")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=late,
                        verified=verified(b"late"),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=taken,
                )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(stand, scenario).manifest
        assert stand.objects(archive) == {region: [first.object_key] for region in REGIONS}

    def test_who_is_cancelled_before_a_manifest_is_written_leaves_nothing(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            asked = asyncio.Event()

            async def endless() -> None:
                asked.set()
                await asyncio.Event().wait()

            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            committing = asyncio.create_task(
                storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(DATA),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=endless,
                )
            )
            await asked.wait()
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert (await storage.find(archive)).copies is None

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_cannot_prove_the_lease_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def silent() -> None:
            raise EngineUnavailable("it does not answer")

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(EngineUnavailable):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(DATA),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=silent,
                )

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_what_is_committed_is_listed_and_nothing_else(self, stand: Stand) -> None:
        source, other = f"s{secrets.token_hex(4)}", f"s{secrets.token_hex(4)}"
        mine = {replace(an_archive(subdir=name), source=source) for name in ODD_NAMES}
        theirs = replace(an_archive(), source=other)

        async def scenario(storage: Storage) -> None:
            assert await listed(storage, source) == []
            for archive in (*mine, theirs):
                await store(storage, archive)
            await storage.upload(replace(an_archive(), source=source), stream(DATA), attempt="a1")
            found = await listed(storage, source)
            assert len(found) == len(mine)
            assert set(found) == mine
            assert {*mine, theirs} <= set(await listed(storage))

        use(stand, scenario)


class TestMemoryStorage(InMemory, StorageContract):
    pass


class TestSeaweedFS(InSeaweedFS, StorageContract):
    pass


class TestRclone(InRclone, StorageContract):
    pass
