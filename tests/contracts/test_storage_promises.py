"""What ``ports.Storage`` promises of manifests whose objects are lost, or are not shown."""

import secrets
from dataclasses import replace

import pytest

from archiver.errors import BytesChanged, StorageUnavailable
from archiver.model import Copies, Region
from archiver.ports.storage import Commit, Storage
from tests.contracts.stands import (
    DATA,
    EAST,
    LARGE,
    NOTHING,
    SOURCE_URL,
    WEST,
    InMemory,
    InRclone,
    InSeaweedFS,
    Stand,
    an_archive,
    damaged,
    kept,
    put_back,
    store,
    stream,
    use,
    verified,
)
from tests.parts.s3 import REGIONS


class PromisesContract:
    @pytest.mark.parametrize("lost", REGIONS)
    def test_a_manifest_without_its_object_is_no_copy_until_it_has_one_again(
        self, stand: Stand, lost: Region
    ) -> None:
        archive = an_archive()
        kept = tuple(region for region in REGIONS if region != lost)

        async def scenario(storage: Storage) -> str:
            both = await store(storage, archive)
            stand.delete(lost, both.manifest.object_key)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=both.manifest, regions=kept)
            await storage.copy(archive, found, lost)
            assert (await storage.find(archive)).copies == both
            return storage.presign(both, lost, method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_bytes_that_every_region_lost_come_back_under_their_name_or_not_at_all(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            first = await store(storage, archive, data)
            for region in REGIONS:
                stand.delete(region, first.manifest.object_key)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first.manifest)
            with pytest.raises(BytesChanged):
                await storage.upload(
                    archive, stream(damaged(data)), attempt="a2", restore=lost.dangling_manifest
                )
            assert stand.objects(archive) == NOTHING
            upload = await storage.upload(
                archive, stream(data), attempt="a3", restore=lost.dangling_manifest
            )
            await storage.discard(upload)
            again = await storage.commit(
                Commit(
                    archive=archive, upload=upload, verified=verified(data), source_url=SOURCE_URL
                ),
                prove_lease=kept,
            )
            assert again == first == (await storage.find(archive)).copies
            return storage.presign(again, WEST, method="GET")

        assert stand.download(use(stand, scenario)) == data

    @pytest.mark.parametrize("bare", REGIONS)
    @pytest.mark.parametrize("trouble", ("none", "bare region full", "bare region blind"))
    def test_bytes_that_came_back_count_wherever_they_are_taken(
        self, stand: Stand, bare: Region, trouble: str
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != bare)

        async def scenario(storage: Storage) -> str:
            stand.take_down(*rest)
            first = await store(storage, archive)
            stand.bring_up()
            stand.delete(bare, first.manifest.object_key)
            if trouble == "bare region full":
                stand.fill(bare)
            if trouble == "bare region blind":
                stand.blind(bare)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first.manifest)
            again = await put_back(storage, archive, lost)
            regions = REGIONS if trouble == "none" else rest
            assert again == Copies(manifest=first.manifest, regions=regions)
            assert (await storage.find(archive)).copies == again
            return storage.presign(again, rest[0], method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("bare", REGIONS)
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
    def test_a_promise_is_kept_while_the_other_region_is_in_trouble(
        self, stand: Stand, bare: Region, trouble: str, has: str
    ) -> None:
        archive = an_archive()
        (other,) = (region for region in REGIONS if region != bare)
        disturb = {"out": stand.take_down, "blind": stand.blind, "full": stand.fill}[trouble]

        async def scenario(storage: Storage) -> str:
            if has == "nothing":
                stand.take_down(other)
            first = (await store(storage, archive)).manifest
            stand.bring_up()
            stand.delete(bare, first.object_key)
            disturb(other)
            lost = await storage.find(archive)
            assert (lost.copies, lost.dangling_manifest) == (None, first)
            assert lost.unreachable == ((other,) if trouble == "out" or has == "a copy" else ())
            with pytest.raises(BytesChanged):
                await put_back(storage, archive, lost, damaged(DATA))
            with pytest.raises(StorageUnavailable):
                await store(storage, archive, b"new", attempt="a3")
            assert stand.objects(archive)[bare] == []
            again = await put_back(storage, archive, lost)
            assert again == Copies(manifest=first, regions=(bare,))
            stand.bring_up()
            regions = REGIONS if has == "a copy" else (bare,)
            assert (await storage.find(archive)).copies == replace(again, regions=regions)
            return storage.presign(again, bare, method="GET")

        assert stand.download(use(stand, scenario)) == DATA
        assert not any("/a3-" in key for keys in stand.objects(archive).values() for key in keys)

    def test_bytes_that_came_back_to_a_region_of_which_nothing_is_known_are_no_copy(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(WEST)
            first = await store(storage, archive)
            stand.bring_up()
            stand.delete(EAST, first.manifest.object_key)
            lost = await storage.find(archive)
            upload = await storage.upload(
                archive, stream(DATA), attempt="a2", restore=lost.dangling_manifest
            )
            stand.take_down(EAST)
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(DATA),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=kept,
                )
            stand.bring_up()
            assert (await storage.find(archive)).copies == Copies(
                manifest=first.manifest, regions=(EAST,)
            )

        use(stand, scenario)

    def test_nothing_is_committed_over_a_promise_that_is_seen_late(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            for region in REGIONS:
                stand.delete(region, first.manifest.object_key)
            upload = await storage.upload(archive, stream(DATA), attempt="a2")
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(DATA),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=kept,
                )
            assert (await storage.find(archive)).dangling_manifest == first.manifest

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_region_that_does_not_show_its_object_has_no_copy_and_is_not_certain(
        self, stand: Stand, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            both = await store(storage, archive)
            stand.blind(blind)
            found = await storage.find(archive)
            assert found.copies == Copies(manifest=both.manifest, regions=rest)
            assert (found.unreachable, found.dangling_manifest) == ((blind,), None)

        use(stand, scenario)

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_manifest_is_a_promise_although_its_region_does_not_show_the_object(
        self, stand: Stand, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            stand.take_down(*rest)
            first = await store(storage, archive)
            stand.bring_up()
            stand.blind(blind)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (None, (blind,))
            assert found.dangling_manifest == first.manifest
            upload = await storage.upload(archive, stream(b"other"), attempt="a2", avoid=(blind,))
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    Commit(
                        archive=archive,
                        upload=upload,
                        verified=verified(b"other"),
                        source_url=SOURCE_URL,
                    ),
                    prove_lease=kept,
                )
            stand.bring_up()
            assert (await storage.find(archive)).copies == first

        use(stand, scenario)
        assert stand.objects(archive)[rest[0]] == []

    @pytest.mark.parametrize(
        ("earlier", "data", "served"),
        ((WEST, b"other", True), (EAST, DATA, True), (EAST, b"other", False)),
    )
    def test_when_the_first_region_lost_its_object_another_ones_stands_in_for_the_same_promise(
        self, stand: Stand, earlier: Region, data: bytes, *, served: bool
    ) -> None:
        archive = an_archive()
        held: dict[Region, Copies] = {}

        async def scenario(storage: Storage) -> None:
            for region in (earlier, WEST if earlier == EAST else EAST):
                stand.take_down(*(other for other in REGIONS if other != region))
                body = data if region == WEST else DATA
                held[region] = await store(storage, archive, body, attempt=region)
                stand.bring_up()
            assert (await storage.find(archive)).copies == held[EAST]
            stand.delete(EAST, held[EAST].manifest.object_key)
            found = await storage.find(archive)
            assert found.copies == (held[WEST] if served else None)
            assert found.dangling_manifest == (None if served else held[EAST].manifest)
            stand.blind(EAST)
            unsure = await storage.find(archive)
            assert unsure.copies == (held[WEST] if data == DATA else None)

        use(stand, scenario)

    def test_the_first_region_is_right_although_it_does_not_show_its_object(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(WEST)
            first = await store(storage, archive)
            stand.bring_up()
            stand.take_down(EAST)
            await store(storage, archive, b"other", attempt="a2")
            stand.bring_up()
            stand.blind(EAST)
            found = await storage.find(archive)
            assert (found.copies, found.dangling_manifest) == (None, first.manifest)

        use(stand, scenario)


class TestMemoryStorage(InMemory, PromisesContract):
    pass


class TestSeaweedFS(InSeaweedFS, PromisesContract):
    pass


class TestRclone(InRclone, PromisesContract):
    pass
