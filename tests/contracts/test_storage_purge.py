"""The contract of ``ports.Storage`` for purges."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from archiver.errors import PurgeUnfinished, StorageUnavailable
from archiver.model import Archive, Copies, Region
from archiver.ports.storage import Storage
from tests.contracts.storage_backends import (
    DATA,
    EAST,
    NOTHING,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    an_archive,
    commit_of,
    lease_held,
    store,
    stream,
    use,
)
from tests.parts.s3 import REGIONS


async def purge(
    storage: Storage, archive: Archive, name: str = "p1"
) -> Mapping[Region, StorageUnavailable]:
    """Purge *archive* as far as possible, and return the regions that failed."""
    failures = await storage.begin_purge(archive, purge=name)
    return failures or await storage.end_purge(archive, purge=name)


class PurgeContract:
    def test_a_purge_leaves_no_trace_and_ends_links(self, backend: Backend) -> None:
        archive = an_archive(subdir="testing")
        sibling = replace(archive, subdir="testing/more")

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive)
            await store(storage, sibling)
            await storage.upload(archive, stream(b"of a killed worker"), attempt="a2")
            traces = await storage.traces(archive)
            assert traces.regions == tuple(traces.manifests) == REGIONS
            assert traces.sha256s == (copies.manifest.sha256,)
            assert traces.total_bytes == 2 * (len(DATA) + len(b"of a killed worker"))
            url = storage.presign(copies, WEST, method="GET")
            assert await purge(storage, archive) == {}
            assert (await storage.traces(archive)).regions == ()
            assert (await storage.find(archive)).copies is None
            assert (await storage.find(sibling)).copies
            return url

        url = use(backend, scenario)
        assert backend.objects(archive) == NOTHING
        with pytest.raises(PermissionError):
            backend.download(url)

    def test_a_purged_archive_can_be_stored_again_with_other_bytes(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, archive)
            await purge(storage, archive)
            copies = await store(storage, archive, b"other bytes")
            assert (await storage.find(archive)).copies == copies
            assert copies.regions == REGIONS

        use(backend, scenario)

    @pytest.mark.parametrize("down", REGIONS)
    def test_a_region_that_was_down_does_not_bring_the_archive_back(
        self, backend: Backend, down: Region
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            backend.take_down(down)
            assert set(await purge(storage, archive)) == {down}
            assert set((await storage.traces(archive)).failures) == {down}
            with pytest.raises(PurgeUnfinished):
                await storage.find(archive)
            backend.bring_up()
            with pytest.raises(PurgeUnfinished):
                await storage.find(archive)
            other = next(region for region in REGIONS if region != down)
            survivor = Copies(manifest=copies.manifest, regions=(down,))
            with pytest.raises(StorageUnavailable):
                await storage.copy(archive, survivor, other)
            assert (await storage.traces(archive)).regions == REGIONS
            assert await purge(storage, archive, "p2") == {}
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_if_no_region_answers_nothing_is_purged(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            backend.take_down(*REGIONS)
            assert set(await purge(storage, archive)) == set(REGIONS)
            backend.bring_up()
            assert (await storage.find(archive)).copies == copies

        use(backend, scenario)

    def test_a_commit_during_a_purge_is_refused_and_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            await storage.begin_purge(archive, purge="p1")
            later = await storage.upload(archive, stream(DATA), attempt="a1")
            for each in (upload, later):
                with pytest.raises(PurgeUnfinished):
                    await storage.commit(
                        commit_of(archive, each, DATA),
                        prove_lease=lease_held,
                    )
            await storage.end_purge(archive, purge="p1")

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_a_commit_after_a_purge_is_refused_and_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            await purge(storage, archive)
            with pytest.raises(StorageUnavailable):
                await storage.commit(commit_of(archive, upload, DATA), prove_lease=lease_held)
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_a_purge_while_the_lease_is_proven_leaves_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")

            async def prove_slowly() -> None:
                await asyncio.sleep(0.5)
                assert await purge(storage, archive) == {}

            with pytest.raises(StorageUnavailable):
                await storage.commit(commit_of(archive, upload, DATA), prove_lease=prove_slowly)
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_a_copy_that_saw_the_archive_before_does_not_bring_it_back(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await purge(storage, archive)
            with pytest.raises(StorageUnavailable):
                await storage.copy(archive, replace(copies, regions=(EAST,)), WEST)
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)

    def test_of_two_purges_at_once_each_removes_its_own_marks(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, archive)
            await storage.begin_purge(archive, purge="p1")
            await storage.begin_purge(archive, purge="p2")
            assert await storage.end_purge(archive, purge="p1") == {}
            with pytest.raises(PurgeUnfinished):
                await storage.find(archive)
            assert await storage.end_purge(archive, purge="p2") == {}
            assert (await storage.find(archive)).copies is None
            rebuilt = await store(storage, archive)
            assert await storage.end_purge(archive, purge="p2") == {}
            assert (await storage.find(archive)).copies == rebuilt

        use(backend, scenario)

    def test_a_full_region_is_purged_although_it_takes_no_mark(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, archive)
            backend.fill(*REGIONS)
            assert await purge(storage, archive) == {}
            backend.bring_up()
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_the_archives_of_a_repo_and_of_a_node_are_listed_from_all_regions(
        self, backend: Backend
    ) -> None:
        archive = an_archive(repo="projects/listed")
        part = replace(archive, subdir="testing", suffix="tar")
        complete = [
            replace(archive, submodules=submodules, lfs=lfs)
            for submodules, lfs in ((True, False), (False, True), (True, True))
        ]
        orphan = replace(archive, node=an_archive().node)
        others = [replace(archive, repo=repo) for repo in ("projects/listed/x", "projects/liste")]

        async def scenario(storage: Storage) -> None:
            for each in (archive, *complete, *others):
                await store(storage, each)
            backend.take_down(EAST)
            await store(storage, part)
            await storage.upload(orphan, stream(DATA), attempt="a1")
            listing = await storage.list_of(archive.source, archive.repo)
            assert listing.archives == {archive, part, orphan, *complete}
            assert set(listing.failures) == {EAST}
            backend.bring_up()
            listing = await storage.list_of(archive.source, archive.repo, archive.node)
            assert listing.archives == {archive, part, *complete}
            assert not listing.failures
            await storage.begin_purge(archive, purge="p1")
            assert archive in (await storage.list_of(archive.source, archive.repo)).archives
            for each in (archive, part, orphan, *complete):
                await purge(storage, each, "p1")
            assert (await storage.list_of(archive.source, archive.repo)).archives == set()

        use(backend, scenario)


class TestMemoryStorage(InMemory, PurgeContract):
    pass


class TestSeaweedFS(InSeaweedFS, PurgeContract):
    pass


@pytest.mark.thorough
class TestRclone(InRclone, PurgeContract):
    pass
