"""The contract of ``ports.Storage``, for the fake and for two S3 servers."""

import asyncio
import hashlib
import secrets
from dataclasses import replace

import pytest

from archiver.errors import EngineUnavailable, LeaseLost, SourceTimeout
from archiver.model import Copies, Node
from archiver.ports.storage import Storage
from tests.contracts.storage_backends import (
    DATA,
    EAST,
    LARGE,
    NOTHING,
    ODD_NAMES,
    SOURCE_URL,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    an_archive,
    commit_of,
    lease_held,
    lease_lost,
    listed,
    store,
    stream,
    use,
)
from tests.parts.s3 import REGIONS


class StorageContract:
    def test_an_archive_is_found_only_after_its_commit(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            assert (await storage.find(archive)).copies is None
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert (await storage.find(archive)).copies is None
            copies = await storage.commit(
                commit_of(archive, upload, DATA),
                prove_lease=lease_held,
            )
            assert (await storage.find(archive)).copies == copies
            assert copies.regions == storage.regions == REGIONS

        use(backend, scenario)

    def test_nodes_with_an_archive_are_found_by_their_first_digits(self, backend: Backend) -> None:
        archive = an_archive()
        twin = replace(archive, node=Node(f"{archive.node[:7]}{secrets.token_hex(17)[1:]}"))
        other = replace(archive, repo=f"{archive.repo}x")

        async def scenario(storage: Storage) -> None:
            async def find(digits: str, *, at_most: int = 3) -> frozenset[Node]:
                return await storage.find_nodes(
                    archive.source, archive.repo, digits, at_most=at_most
                )

            assert await find(archive.node[:7]) == frozenset()
            complete = replace(archive, submodules=True, lfs=True)
            for each in (archive, replace(archive, suffix="zip"), complete, other):
                await store(storage, each)
            assert await find(archive.node[:7]) == {archive.node}
            await store(storage, replace(twin, lfs=True))
            assert await find(archive.node[:7]) == {archive.node, twin.node}
            assert await find(archive.node[:12]) == {archive.node}
            assert len(await find(archive.node[:4], at_most=1)) == 1
            backend.take_down(EAST)
            assert await find(archive.node[:-1]) == {archive.node}

        use(backend, scenario)

    def test_a_manifest_records_the_verified_measures_and_the_source_url(
        self, backend: Backend
    ) -> None:
        archive = an_archive(subdir="testing")
        manifest = use(backend, lambda storage: store(storage, archive)).manifest
        assert manifest.key == archive.key
        assert manifest.node == archive.node
        assert (manifest.sha256, manifest.size_bytes) == (
            hashlib.sha256(DATA).hexdigest(),
            len(DATA),
        )
        assert (manifest.root, manifest.source_url) == ("ash-012345", SOURCE_URL)
        assert manifest.links_outside == 2
        assert manifest.created_at.tzinfo is not None
        assert backend.objects(archive) == {region: [manifest.object_key] for region in REGIONS}
        assert manifest.object_key.endswith(f"/{archive.file_name}")

    def test_the_first_manifest_wins_and_the_later_upload_is_discarded(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            later = await storage.upload(archive, stream(b"later"), attempt="a2")
            first = await store(storage, archive, attempt="a1")
            assert first == await storage.commit(
                commit_of(archive, later, b"later"),
                prove_lease=lease_held,
            )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(backend, scenario).manifest
        assert backend.objects(archive) == {region: [first.object_key] for region in REGIONS}

    @pytest.mark.parametrize("attempt", ("a1", "a2"))
    def test_uploads_of_one_archive_do_not_overwrite_each_other(
        self, backend: Backend, attempt: str
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive, attempt="a1")
            other = await storage.upload(archive, stream(b"other"), attempt=attempt)
            await storage.discard(other)
            assert (await storage.find(archive)).copies == copies
            return storage.presign(copies, WEST, method="GET")

        assert backend.download(use(backend, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (0, 1, LARGE))
    def test_a_presigned_url_returns_the_uploaded_bytes(
        self, backend: Backend, size_bytes: int
    ) -> None:
        data = secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> list[str]:
            copies = await store(storage, an_archive(), data)
            return [storage.presign(copies, region, method="GET") for region in REGIONS]

        for url in use(backend, scenario):
            assert backend.download(url) == data

    def test_a_url_for_another_method_or_with_another_signature_is_rejected(
        self, backend: Backend
    ) -> None:
        async def scenario(storage: Storage) -> tuple[str, str]:
            copies = await store(storage, an_archive())
            return (
                storage.presign(copies, EAST, method="HEAD"),
                storage.presign(copies, EAST, method="GET"),
            )

        for_head, for_get = use(backend, scenario)
        assert backend.download(for_get) == DATA
        flipped = for_get[:-1] + ("0" if for_get[-1] != "0" else "1")
        for url in (for_head, flipped):
            with pytest.raises(PermissionError):
                backend.download(url)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_unusual_names_have_keys_of_their_own(self, backend: Backend, name: str) -> None:
        archive, other = an_archive(subdir=name), an_archive(repo=name)

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive)
            assert (await storage.find(archive)).copies == copies
            assert (await storage.find(other)).copies is None
            return storage.presign(await store(storage, other, b"other"), EAST, method="GET")

        assert backend.download(use(backend, scenario)) == b"other"

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_failing_stream_leaves_nothing_and_its_error_is_raised(
        self, backend: Backend, size_bytes: int
    ) -> None:
        archive, failure = an_archive(), SourceTimeout("the host fell silent")

        async def scenario(storage: Storage) -> None:
            with pytest.raises(SourceTimeout) as raised:
                await storage.upload(an_archive(), stream(bytes(size_bytes), failure), attempt="a1")
            assert raised.value is failure

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_a_discarded_upload_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            await storage.discard(upload)
            await storage.discard(upload)

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_an_attempt_without_its_lease_commits_nothing_and_leaves_nothing(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=lease_lost,
                )
            assert (await storage.find(archive)).copies is None

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_an_attempt_without_its_lease_does_not_affect_the_copies_of_another(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            late = await storage.upload(archive, stream(b"late"), attempt="a1")
            first = await store(storage, archive, attempt="a2")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    commit_of(archive, late, b"late"),
                    prove_lease=lease_lost,
                )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(backend, scenario).manifest
        assert backend.objects(archive) == {region: [first.object_key] for region in REGIONS}

    def test_a_commit_cancelled_before_the_manifest_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            asked = asyncio.Event()

            async def endless() -> None:
                asked.set()
                await asyncio.Event().wait()

            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            committing = asyncio.create_task(
                storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=endless,
                )
            )
            await asked.wait()
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert (await storage.find(archive)).copies is None

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_an_attempt_that_cannot_prove_its_lease_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def silent() -> None:
            raise EngineUnavailable("it does not answer")

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(EngineUnavailable):
                await storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=silent,
                )

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_only_committed_archives_are_listed(self, backend: Backend) -> None:
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

        use(backend, scenario)


class TestMemoryStorage(InMemory, StorageContract):
    pass


class TestSeaweedFS(InSeaweedFS, StorageContract):
    pass


@pytest.mark.thorough
class TestRclone(InRclone, StorageContract):
    pass
