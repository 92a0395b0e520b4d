"""What ``ports.Storage`` promises when a region is out, or lacks what another one has."""

import secrets

import pytest

from archiver.errors import CorruptArchive, StorageUnavailable
from archiver.model import Copies, Region
from archiver.ports.storage import Commit, Storage
from tests.contracts.stands import (
    DATA,
    EAST,
    LARGE,
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
    use,
    verified,
)
from tests.parts.s3 import REGIONS


class RegionsContract:
    @pytest.mark.parametrize("region", REGIONS)
    def test_a_region_that_is_out_is_left_behind(self, stand: Stand, region: Region) -> None:
        archive = an_archive()
        rest = tuple(other for other in REGIONS if other != region)
        stand.take_down(region)

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert upload.regions == rest
            assert isinstance(upload.failures[region], StorageUnavailable)
            copies = await storage.commit(
                Commit(
                    archive=archive, upload=upload, verified=verified(DATA), source_url=SOURCE_URL
                ),
                prove_lease=kept,
            )
            assert copies.regions == rest
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, (region,))

        use(stand, scenario)

    @pytest.mark.parametrize("region", REGIONS)
    def test_a_region_that_goes_out_before_the_commit_is_left_behind(
        self, stand: Stand, region: Region
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            stand.take_down(region)
            copies = await storage.commit(
                Commit(
                    archive=archive, upload=upload, verified=verified(DATA), source_url=SOURCE_URL
                ),
                prove_lease=kept,
            )
            assert copies.regions == tuple(other for other in REGIONS if other != region)

        use(stand, scenario)

    def test_a_region_to_avoid_is_not_tried_unless_there_is_no_other(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            some = await storage.upload(archive, stream(DATA), attempt="a1", avoid=REGIONS[:1])
            assert (some.regions, dict(some.failures)) == (REGIONS[1:], {})
            every = await storage.upload(archive, stream(DATA), attempt="a2", avoid=REGIONS)
            assert every.regions == REGIONS

        use(stand, scenario)

    def test_without_a_region_nothing_is_stored(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            stand.take_down(*REGIONS)
            with pytest.raises(StorageUnavailable):
                await storage.upload(archive, stream(DATA), attempt="a2")
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
            with pytest.raises(StorageUnavailable):
                await storage.find(archive)

        use(stand, scenario)

    def test_a_region_that_refuses_writes_is_told_from_one_that_does_not(
        self, stand: Stand
    ) -> None:
        async def scenario(storage: Storage) -> None:
            assert await storage.check_writable() == {EAST: None, WEST: None}

        async def full(storage: Storage) -> None:
            stand.fill(WEST)
            answers = await storage.check_writable()
            assert answers[EAST] is None
            assert isinstance(answers[WEST], StorageUnavailable)
            assert (await storage.find(an_archive())).unreachable == ()  # it is read all the same

        use(stand, scenario)
        use(stand, full)

    def test_each_region_is_asked_whether_it_answers(self, stand: Stand) -> None:
        async def scenario(storage: Storage) -> None:
            assert await storage.check_access() == {EAST: None, WEST: None}
            stand.take_down(WEST)
            answers = await storage.check_access()
            assert answers[EAST] is None
            assert isinstance(answers[WEST], StorageUnavailable)

        use(stand, scenario)

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_region_that_lacks_an_archive_gets_it_from_another(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            stand.take_down(EAST)
            copies = await store(storage, archive, data)
            stand.bring_up()
            await storage.copy(archive, copies, EAST)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=copies.manifest, regions=REGIONS)
            return storage.presign(found, EAST, method="GET")

        assert stand.download(use(stand, scenario)) == data

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_damaged_copy_is_not_copied(self, stand: Stand, size_bytes: int) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(EAST)
            copies = await store(storage, archive, bytes(size_bytes))
            stand.bring_up()
            stand.damage(WEST, copies.manifest.object_key)
            with pytest.raises(CorruptArchive):
                await storage.copy(archive, copies, EAST)
            assert (await storage.find(archive)).copies == copies

        use(stand, scenario)
        assert stand.objects(archive)[EAST] == []

    def test_a_region_that_shows_no_object_takes_no_manifest(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.blind(EAST)
            copies = await store(storage, archive)
            assert copies.regions == (WEST,)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, ())

        use(stand, scenario)

    @pytest.mark.parametrize("out", REGIONS)
    def test_a_copy_needs_both_regions(self, stand: Stand, out: Region) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(EAST)
            copies = await store(storage, archive)
            stand.bring_up()
            stand.take_down(out)
            with pytest.raises(StorageUnavailable):
                await storage.copy(archive, copies, EAST)

        use(stand, scenario)

    def test_the_first_region_that_answers_is_the_one_that_is_listed(self, stand: Stand) -> None:
        both, eastern, western = an_archive(), an_archive(), an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, both)
            stand.take_down(WEST)
            await store(storage, eastern)
            assert {both, eastern} <= set(await listed(storage))
            stand.bring_up()
            stand.take_down(EAST)
            await store(storage, western)
            found = await listed(storage)
            assert {both, western} <= set(found)
            assert eastern not in found
            assert set(await listed(storage, western.source, region=WEST)) >= {both, western}
            with pytest.raises(StorageUnavailable):
                await listed(storage, region=EAST)
            stand.take_down(WEST)
            with pytest.raises(StorageUnavailable):
                await listed(storage)

        use(stand, scenario)


class TestMemoryStorage(InMemory, RegionsContract):
    pass


class TestSeaweedFS(InSeaweedFS, RegionsContract):
    pass


class TestRclone(InRclone, RegionsContract):
    pass
