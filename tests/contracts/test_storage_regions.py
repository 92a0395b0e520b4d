"""The contract of ``ports.Storage`` for unreachable regions and missing copies."""

import secrets

import pytest

from archiver.errors import CorruptArchive, StorageUnavailable
from archiver.model import Copies, Region
from archiver.ports.storage import Storage
from tests.contracts.storage_backends import (
    DATA,
    EAST,
    LARGE,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    an_archive,
    commit_of,
    lease_held,
    listed,
    store,
    stream,
    use,
)
from tests.parts.s3 import REGIONS
from tests.parts.thorough import thorough


class RegionsContract:
    @pytest.mark.parametrize("region", REGIONS)
    def test_an_unreachable_region_is_skipped(self, backend: Backend, region: Region) -> None:
        archive = an_archive()
        rest = tuple(other for other in REGIONS if other != region)
        backend.take_down(region)

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert upload.regions == rest
            assert isinstance(upload.failures[region], StorageUnavailable)
            copies = await storage.commit(
                commit_of(archive, upload, DATA),
                prove_lease=lease_held,
            )
            assert copies.regions == rest
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, (region,))

        use(backend, scenario)

    @pytest.mark.parametrize("region", REGIONS)
    def test_a_region_that_becomes_unreachable_before_the_commit_is_skipped(
        self, backend: Backend, region: Region
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            backend.take_down(region)
            copies = await storage.commit(
                commit_of(archive, upload, DATA),
                prove_lease=lease_held,
            )
            assert copies.regions == tuple(other for other in REGIONS if other != region)

        use(backend, scenario)

    def test_a_region_to_avoid_is_used_only_if_there_is_no_other(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            some = await storage.upload(archive, stream(DATA), attempt="a1", avoid=REGIONS[:1])
            assert (some.regions, dict(some.failures)) == (REGIONS[1:], {})
            every = await storage.upload(archive, stream(DATA), attempt="a2", avoid=REGIONS)
            assert every.regions == REGIONS

        use(backend, scenario)

    @pytest.mark.thorough
    def test_without_reachable_regions_every_call_raises(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            backend.take_down(*REGIONS)
            with pytest.raises(StorageUnavailable):
                await storage.upload(archive, stream(DATA), attempt="a2")
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=lease_held,
                )
            with pytest.raises(StorageUnavailable):
                await storage.find(archive)

        use(backend, scenario)

    def test_a_region_that_rejects_writes_is_reported(self, backend: Backend) -> None:
        async def scenario(storage: Storage) -> None:
            assert await storage.check_writable() == {EAST: None, WEST: None}

        async def full(storage: Storage) -> None:
            backend.fill(WEST)
            answers = await storage.check_writable()
            assert answers[EAST] is None
            assert isinstance(answers[WEST], StorageUnavailable)
            assert (await storage.find(an_archive())).unreachable == ()  # reads still work

        use(backend, scenario)
        use(backend, full)

    def test_the_access_check_reports_each_region(self, backend: Backend) -> None:
        async def scenario(storage: Storage) -> None:
            assert await storage.check_access() == {EAST: None, WEST: None}
            backend.take_down(WEST)
            answers = await storage.check_access()
            assert answers[EAST] is None
            assert isinstance(answers[WEST], StorageUnavailable)

        use(backend, scenario)

    @pytest.mark.parametrize("size_bytes", (100, *thorough(LARGE)))
    def test_an_archive_is_copied_to_a_region_that_lacks_it(
        self, backend: Backend, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            backend.take_down(EAST)
            copies = await store(storage, archive, data)
            backend.bring_up()
            await storage.copy(archive, copies, EAST)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=copies.manifest, regions=REGIONS)
            return storage.presign(found, EAST, method="GET")

        assert backend.download(use(backend, scenario)) == data

    @pytest.mark.parametrize("size_bytes", (100, *thorough(LARGE)))
    def test_a_damaged_copy_is_not_copied(self, backend: Backend, size_bytes: int) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(EAST)
            copies = await store(storage, archive, bytes(size_bytes))
            backend.bring_up()
            backend.damage(WEST, copies.manifest.object_key)
            with pytest.raises(CorruptArchive):
                await storage.copy(archive, copies, EAST)
            assert (await storage.find(archive)).copies == copies

        use(backend, scenario)
        assert backend.objects(archive)[EAST] == []

    def test_a_region_that_does_not_show_the_object_gets_no_manifest(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.blind(EAST)
            copies = await store(storage, archive)
            assert copies.regions == (WEST,)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, ())

        use(backend, scenario)

    @pytest.mark.parametrize("out", REGIONS)
    def test_copying_needs_both_regions(self, backend: Backend, out: Region) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(EAST)
            copies = await store(storage, archive)
            backend.bring_up()
            backend.take_down(out)
            with pytest.raises(StorageUnavailable):
                await storage.copy(archive, copies, EAST)

        use(backend, scenario)

    def test_the_first_region_that_answers_is_listed(self, backend: Backend) -> None:
        both, eastern, western = an_archive(), an_archive(), an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, both)
            backend.take_down(WEST)
            await store(storage, eastern)
            assert {both, eastern} <= set(await listed(storage))
            backend.bring_up()
            backend.take_down(EAST)
            await store(storage, western)
            found = await listed(storage)
            assert {both, western} <= set(found)
            assert eastern not in found
            assert set(await listed(storage, western.source, region=WEST)) >= {both, western}
            with pytest.raises(StorageUnavailable):
                await listed(storage, region=EAST)
            backend.take_down(WEST)
            with pytest.raises(StorageUnavailable):
                await listed(storage)

        use(backend, scenario)


class TestMemoryStorage(InMemory, RegionsContract):
    pass


class TestSeaweedFS(InSeaweedFS, RegionsContract):
    pass


@pytest.mark.thorough
class TestRclone(InRclone, RegionsContract):
    pass
