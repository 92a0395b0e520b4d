"""The contract of ``ports.Storage`` for archives that expire."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from structlog.testing import capture_logs

from archiver.errors import PurgeUnfinished, StorageUnavailable
from archiver.model import Archive, Copies, Region, Tombstone
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
    S3Backend,
    an_archive,
    store,
    use,
)
from tests.parts.s3 import REGIONS

OTHER = b"other bytes"


async def expire(storage: Storage, archive: Archive, copies: Copies) -> Tombstone:
    tombstone = Tombstone.of(copies.manifest, expired_at=datetime.now(UTC))
    assert await storage.put_tombstone(archive, tombstone) == {}
    assert await storage.withdraw(archive, copies.manifest) == {}
    return tombstone


class TombstoneContract:
    def test_an_expired_archive_is_gone_but_for_its_bytes_and_tombstone(
        self, backend: Backend
    ) -> None:
        archive = an_archive(subdir="testing")
        sibling = replace(archive, subdir="testing/more")

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await store(storage, sibling)
            assert await storage.read_tombstone(archive) is None
            url = storage.presign(copies, WEST, method="GET")
            tombstone = await expire(storage, archive, copies)
            found = await storage.find(archive)
            assert (found.copies, found.dangling_manifest) == (None, None)
            assert await storage.read_tombstone(archive) == tombstone
            assert await storage.read_tombstone(sibling) is None
            assert (await storage.find(sibling)).copies
            assert archive not in [each async for each in storage.iter_archives()]
            assert backend.download(url) == DATA

        use(backend, scenario)

    def test_the_same_bytes_supersede_nothing(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            await expire(storage, archive, first)
            again = await store(storage, archive, attempt="a2")
            assert again.manifest.sha256 == first.manifest.sha256
            assert again.manifest.supersedes is None
            assert (await storage.find(archive)).copies == again

        use(backend, scenario)

    @pytest.mark.parametrize("down", (None, EAST, WEST))
    def test_other_bytes_supersede_the_expired_ones(self, backend: Backend, down: object) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await expire(storage, archive, await store(storage, archive))
            backend.take_down(*(region for region in REGIONS if region == down))
            copies = await store(storage, archive, OTHER, attempt="a2")
            assert copies.manifest.supersedes == hashlib.sha256(DATA).hexdigest()
            assert (await storage.find(archive)).copies == copies

        use(backend, scenario)

    def test_of_two_tombstones_the_later_counts(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            later = await expire(storage, archive, copies)
            backend.take_down(WEST)
            earlier = replace(later, expired_at=later.expired_at - timedelta(days=1))
            assert set(await storage.put_tombstone(archive, earlier)) == {WEST}
            backend.bring_up()
            assert await storage.read_tombstone(archive) == later

        use(backend, scenario)

    def test_without_an_answer_it_is_unknown_whether_there_is_a_tombstone(
        self, backend: Backend
    ) -> None:
        async def scenario(storage: Storage) -> None:
            backend.take_down(*REGIONS)
            with pytest.raises(StorageUnavailable):
                await storage.read_tombstone(an_archive())

        use(backend, scenario)

    def test_another_manifest_is_not_withdrawn(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            other = replace(copies.manifest, sha256=hashlib.sha256(OTHER).hexdigest())
            assert await storage.withdraw(archive, other) == {}
            assert (await storage.find(archive)).copies == copies

        use(backend, scenario)

    def test_the_mark_of_a_purge_is_not_withdrawn(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await storage.begin_purge(archive, purge="p1")
            await storage.withdraw(archive, copies.manifest)
            with pytest.raises(PurgeUnfinished):
                await storage.find(archive)

        use(backend, scenario)

    @pytest.mark.parametrize("lost", (None, EAST, WEST))
    def test_a_withdrawn_archive_can_be_reinstated(self, backend: Backend, lost: object) -> None:
        """But not where its bytes are gone."""
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await expire(storage, archive, copies)
            for region in (region for region in REGIONS if region == lost):
                backend.delete(region, copies.manifest.object_key)
            await storage.reinstate(archive, copies.manifest)
            left = tuple(region for region in REGIONS if region != lost)
            assert (await storage.find(archive)).copies == replace(copies, regions=left)

        use(backend, scenario)

    @pytest.mark.parametrize("down", REGIONS)
    def test_a_silent_region_is_not_reinstated(self, backend: Backend, down: Region) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await expire(storage, archive, copies)
            backend.take_down(down)
            await storage.reinstate(archive, copies.manifest)
            backend.bring_up()
            left = tuple(region for region in REGIONS if region != down)
            assert (await storage.find(archive)).copies == replace(copies, regions=left)

        use(backend, scenario)

    def test_an_archive_that_was_built_again_is_not_replaced(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            await expire(storage, archive, first)
            backend.take_down(WEST)
            second = await store(storage, archive, OTHER, attempt="a2")
            backend.bring_up()
            await storage.reinstate(archive, first.manifest)
            assert (await storage.find(archive)).copies == second

        use(backend, scenario)

    def test_a_purge_removes_the_tombstone_and_the_bytes(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            tombstone = await expire(storage, archive, copies)
            traces = await storage.traces(archive)
            assert (traces.regions, traces.tombstone) == (REGIONS, tombstone)
            assert traces.sha256s == (tombstone.sha256,)
            assert archive in (await storage.list_of(archive.source, archive.repo)).archives
            assert await storage.begin_purge(archive, purge="p1") == {}
            assert await storage.end_purge(archive, purge="p1") == {}
            assert (await storage.traces(archive)).regions == ()
            assert await storage.read_tombstone(archive) is None
            listing = await storage.list_of(archive.source, archive.repo)
            assert archive not in listing.archives

        use(backend, scenario)
        assert backend.objects(archive) == NOTHING

    def test_a_tombstone_without_bytes_is_a_trace(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            copies = await store(storage, archive)
            await expire(storage, archive, copies)
            for region in REGIONS:
                backend.delete(region, copies.manifest.object_key)
            assert (await storage.traces(archive)).regions == REGIONS
            assert archive in (await storage.list_of(archive.source, archive.repo)).archives
            assert await storage.remove_tombstone(archive) == {}
            assert (await storage.traces(archive)).regions == ()

        use(backend, scenario)


class TestMemoryStorage(InMemory, TombstoneContract):
    pass


class TestSeaweedFS(InSeaweedFS, TombstoneContract):
    @pytest.mark.parametrize("expired_at", ("2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"))
    def test_a_tombstone_of_another_age_is_none(self, backend: Backend, expired_at: str) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            tombstone = await expire(storage, archive, await store(storage, archive))
            changed = msgspec.to_builtins(tombstone) | {"expired_at": expired_at}
            write_tombstone(backend, archive, msgspec.json.encode(changed), EAST)
            assert await storage.read_tombstone(archive) == tombstone

        use(backend, scenario)

    def test_superseded_bytes_are_logged(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            await expire(storage, archive, first)
            with capture_logs() as lines:
                copies = await store(storage, archive, OTHER, attempt="a2")
            assert lines == [
                {
                    "event": "archive.superseded",
                    "log_level": "warning",
                    "key": archive.key,
                    "sha256": copies.manifest.sha256,
                    "expected_sha256": first.manifest.sha256,
                }
            ]

        use(backend, scenario)

    @pytest.mark.parametrize(
        "body", (b"", b"null", b"{}", b'{"key": "x"}', b"\xff", b'{"sha256": 7}', b"[" * 9999)
    )
    def test_a_damaged_tombstone_is_none(self, backend: Backend, body: bytes) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            tombstone = await expire(storage, archive, await store(storage, archive))
            write_tombstone(backend, archive, body, EAST)
            assert await storage.read_tombstone(archive) == tombstone
            write_tombstone(backend, archive, body, WEST)
            assert await storage.read_tombstone(archive) is None
            copies = await store(storage, archive, OTHER, attempt="a2")
            assert copies.manifest.supersedes is None

        use(backend, scenario)


@pytest.mark.thorough
class TestRclone(InRclone, TombstoneContract):
    pass


def write_tombstone(backend: Backend, archive: Archive, body: bytes, region: object) -> None:
    assert isinstance(backend, S3Backend)
    home = backend.home
    name = next(name for each, name in home.names.items() if each == region)
    path = f"/{name}/tombstones/{archive.key}.json"
    status, _ = home.server.request("PUT", path, body=body)
    assert status == 200
