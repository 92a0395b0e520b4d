"""The contract of ``ports.Storage`` for manifests whose objects are lost or not shown."""

import secrets
from dataclasses import replace

import pytest

from archiver.errors import BytesChanged, StorageUnavailable
from archiver.model import Copies, Region
from archiver.ports.storage import Storage
from tests.contracts.storage_backends import (
    DATA,
    EAST,
    LARGE,
    NOTHING,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    an_archive,
    commit_of,
    damaged,
    lease_held,
    restore,
    store,
    stream,
    use,
)
from tests.parts.s3 import REGIONS
from tests.parts.thorough import thorough


class PromisesContract:
    @pytest.mark.parametrize("lost", REGIONS)
    def test_a_dangling_manifest_is_not_a_copy_until_its_object_is_restored(
        self, backend: Backend, lost: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != lost)

        async def scenario(storage: Storage) -> str:
            both = await store(storage, archive)
            backend.delete(lost, both.manifest.object_key)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=both.manifest, regions=rest)
            await storage.copy(archive, found, lost)
            assert (await storage.find(archive)).copies == both
            return storage.presign(both, lost, method="GET")

        assert backend.download(use(backend, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (100, *thorough(LARGE)))
    def test_lost_bytes_are_restored_under_their_key_only_if_they_are_unchanged(
        self, backend: Backend, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            first = await store(storage, archive, data)
            for region in REGIONS:
                backend.delete(region, first.manifest.object_key)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first.manifest)
            with pytest.raises(BytesChanged):
                await storage.upload(
                    archive, stream(damaged(data)), attempt="a2", restore=lost.dangling_manifest
                )
            assert backend.objects(archive) == NOTHING
            upload = await storage.upload(
                archive, stream(data), attempt="a3", restore=lost.dangling_manifest
            )
            await storage.discard(upload)
            again = await storage.commit(
                commit_of(archive, upload, data),
                prove_lease=lease_held,
            )
            assert again == first == (await storage.find(archive)).copies
            return storage.presign(again, WEST, method="GET")

        assert backend.download(use(backend, scenario)) == data

    @pytest.mark.parametrize("bare", (EAST, *thorough(WEST)))
    @pytest.mark.parametrize("trouble", ("none", *thorough("its region full", "its region blind")))
    def test_restored_bytes_count_in_every_region_that_stores_them(
        self, backend: Backend, bare: Region, trouble: str
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != bare)

        async def scenario(storage: Storage) -> str:
            backend.take_down(*rest)
            first = await store(storage, archive)
            backend.bring_up()
            backend.delete(bare, first.manifest.object_key)
            if trouble == "its region full":
                backend.fill(bare)
            if trouble == "its region blind":
                backend.blind(bare)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first.manifest)
            again = await restore(storage, archive, lost)
            regions = REGIONS if trouble == "none" else rest
            assert again == Copies(manifest=first.manifest, regions=regions)
            assert (await storage.find(archive)).copies == again
            return storage.presign(again, rest[0], method="GET")

        assert backend.download(use(backend, scenario)) == DATA

    @pytest.mark.parametrize("bare", (EAST, *thorough(WEST)))
    @pytest.mark.parametrize(
        ("trouble", "has"),
        (
            ("out", "nothing"),
            ("out", "a copy"),
            ("blind", "nothing"),
            ("blind", "a copy"),
            ("full", "nothing"),
        ),
    )
    def test_a_dangling_manifest_is_respected_while_the_other_region_fails(
        self, backend: Backend, bare: Region, trouble: str, has: str
    ) -> None:
        archive = an_archive()
        (other,) = (region for region in REGIONS if region != bare)
        disturb = {"out": backend.take_down, "blind": backend.blind, "full": backend.fill}[trouble]

        async def scenario(storage: Storage) -> str:
            if has == "nothing":
                backend.take_down(other)
            first = (await store(storage, archive)).manifest
            backend.bring_up()
            backend.delete(bare, first.object_key)
            disturb(other)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first)
            assert lost.unreachable == ((other,) if trouble == "out" or has == "a copy" else ())
            with pytest.raises(BytesChanged):
                await restore(storage, archive, lost, damaged(DATA))
            with pytest.raises(StorageUnavailable):
                await store(storage, archive, b"new", attempt="a3")
            assert backend.objects(archive)[bare] == []
            again = await restore(storage, archive, lost)
            assert again == Copies(manifest=first, regions=(bare,))
            backend.bring_up()
            regions = REGIONS if has == "a copy" else (bare,)
            assert (await storage.find(archive)).copies == replace(again, regions=regions)
            return storage.presign(again, bare, method="GET")

        assert backend.download(use(backend, scenario)) == DATA
        assert not any("/a3-" in key for keys in backend.objects(archive).values() for key in keys)

    def test_restored_bytes_in_a_region_that_stops_answering_are_not_a_copy(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(WEST)
            first = await store(storage, archive)
            backend.bring_up()
            backend.delete(EAST, first.manifest.object_key)
            lost = await storage.find(archive)
            upload = await storage.upload(
                archive, stream(DATA), attempt="a2", restore=lost.dangling_manifest
            )
            backend.take_down(EAST)
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=lease_held,
                )
            backend.bring_up()
            assert (await storage.find(archive)).copies == Copies(
                manifest=first.manifest, regions=(EAST,)
            )

        use(backend, scenario)

    def test_a_dangling_manifest_found_at_the_commit_prevents_it(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            for region in REGIONS:
                backend.delete(region, first.manifest.object_key)
            upload = await storage.upload(archive, stream(DATA), attempt="a2")
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    commit_of(archive, upload, DATA),
                    prove_lease=lease_held,
                )
            assert (await storage.find(archive)).dangling_manifest == first.manifest

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_region_that_does_not_show_its_object_counts_as_unreachable(
        self, backend: Backend, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            both = await store(storage, archive)
            backend.blind(blind)
            found = await storage.find(archive)
            assert found.copies == Copies(manifest=both.manifest, regions=rest)
            assert (found.unreachable, found.dangling_manifest) == ((blind,), None)

        use(backend, scenario)

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_manifest_is_respected_even_if_its_region_does_not_show_the_object(
        self, backend: Backend, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            backend.take_down(*rest)
            first = await store(storage, archive)
            backend.bring_up()
            backend.blind(blind)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (None, (blind,))
            assert found.dangling_manifest == first.manifest
            upload = await storage.upload(archive, stream(b"other"), attempt="a2", avoid=(blind,))
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    commit_of(archive, upload, b"other"),
                    prove_lease=lease_held,
                )
            backend.bring_up()
            assert (await storage.find(archive)).copies == first

        use(backend, scenario)
        assert backend.objects(archive)[rest[0]] == []

    @pytest.mark.parametrize(
        ("earlier", "data", "served"),
        ((WEST, b"other", True), (EAST, DATA, True), (EAST, b"other", False)),
    )
    def test_another_regions_manifest_stands_in_when_the_first_region_lost_its_object(
        self, backend: Backend, earlier: Region, data: bytes, *, served: bool
    ) -> None:
        archive = an_archive()
        held: dict[Region, Copies] = {}

        async def scenario(storage: Storage) -> None:
            for region in (earlier, WEST if earlier == EAST else EAST):
                backend.take_down(*(other for other in REGIONS if other != region))
                body = data if region == WEST else DATA
                held[region] = await store(storage, archive, body, attempt=region)
                backend.bring_up()
            assert (await storage.find(archive)).copies == held[EAST]
            backend.delete(EAST, held[EAST].manifest.object_key)
            found = await storage.find(archive)
            assert found.copies == (held[WEST] if served else None)
            assert found.dangling_manifest == (None if served else held[EAST].manifest)
            backend.blind(EAST)
            unsure = await storage.find(archive)
            assert unsure.copies == (held[WEST] if data == DATA else None)

        use(backend, scenario)

    def test_the_first_region_is_authoritative_even_if_it_does_not_show_its_object(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(WEST)
            first = await store(storage, archive)
            backend.bring_up()
            backend.take_down(EAST)
            await store(storage, archive, b"other", attempt="a2")
            backend.bring_up()
            backend.blind(EAST)
            found = await storage.find(archive)
            assert (found.copies, found.dangling_manifest) == (None, first.manifest)

        use(backend, scenario)


class TestMemoryStorage(InMemory, PromisesContract):
    pass


class TestSeaweedFS(InSeaweedFS, PromisesContract):
    pass


@pytest.mark.thorough
class TestRclone(InRclone, PromisesContract):
    pass
