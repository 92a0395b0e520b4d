"""Manifests, objects and the index are compared, and repaired."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import StorageUnavailable
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.model import Archive, Copies, Manifest, Region
from archiver.ports.bucket_contents import UnfinishedUpload
from archiver.testing import MemoryEngine, MemoryStorage
from archiver.upkeep.defect import Defect
from archiver.upkeep.fsck import Fsck, Scope, Tally
from tests.parts.fleet import Fleet, an_archive, copies_of

ONE, TWO, THREE = map(Region, ("one", "two", "three"))
DAY = timedelta(days=1)
DATA = b"bytes"
CHECK, REPAIR = Scope(), Scope(repair=True)

Found = set[tuple[str, str | None, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    storage: MemoryStorage
    engine: MemoryEngine
    store: JetStreamIndexStore

    async def run(self, scope: Scope = CHECK) -> tuple[list[Defect], Tally]:
        fsck = Fsck(
            storage=self.storage,
            contents=self.storage.contents,
            store=self.store,
            repairs=self.engine,
            min_age=DAY,
            on_progress=lambda _tally: None,
            settling=timedelta(0),
        )
        return [defect async for defect in fsck.run(scope)], fsck.tally

    async def defects(self, scope: Scope = CHECK) -> Found:
        return summary((await self.run(scope))[0])

    async def commit(self, *regions: Region, archive: Archive | None = None) -> Manifest:
        """Store and index an archive."""
        archive = archive or an_archive()
        manifest = replace(
            copies_of(archive).manifest,
            size_bytes=len(DATA),
            sha256=hashlib.sha256(DATA).hexdigest(),
        )
        copies = Copies(manifest=manifest, regions=regions or self.storage.regions)
        for region in copies.regions:
            self.storage.manifests[region][archive.key] = manifest
            self.storage.objects[region][manifest.object_key] = DATA
        await self.store.write(archive, copies, revision=0)
        await self.store.write_sha256(manifest.sha256, archive)
        return manifest

    def leave(self, archive: Archive, region: Region, *, age: timedelta = 2 * DAY) -> str:
        """Leave an object of an abandoned upload in *region*."""
        object_key = f"archives/{archive.key}/lost-1/{archive.file_name}"
        self.storage.objects[region][object_key] = DATA
        self.storage.contents.modified_at[object_key] = datetime.now(UTC) - age
        return object_key


def summary(defects: Iterable[Defect]) -> Found:
    return {(str(defect.kind), defect.region, defect.repaired) for defect in defects}


def play(fleet: Fleet, scenario: Callable[[Bench], Awaitable[None]], *regions: Region) -> None:
    async def run() -> None:
        storage = MemoryStorage(regions=regions or (ONE, TWO))
        async with fleet.connection() as connection:
            store = JetStreamIndexStore(connection=connection, storage=storage)
            await scenario(Bench(storage=storage, engine=MemoryEngine(), store=store))

    asyncio.run(run())


def archive_of(manifest: Manifest) -> Archive:
    return replace(an_archive(), node=manifest.node)


def test_a_sound_installation_has_no_defects(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(100):
            await bench.commit()
        defects, tally = await bench.run(Scope(read=True))
        assert defects == []
        assert (tally.archives, tally.objects, tally.size_bytes) == (100, 200, 200 * len(DATA))
        assert (tally.remaining, tally.unanswered) == (0, 0)

    play(fleet, scenario)


def test_a_lost_object_is_missing_and_goes_on_the_repair_list(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        del bench.storage.objects[TWO][manifest.object_key]
        (defect, index), tally = await bench.run()
        assert (defect.kind, defect.region, defect.key) == ("missing", TWO, manifest.object_key)
        assert (defect.size_bytes, defect.archive) == (len(DATA), archive_of(manifest))
        assert (index.kind, index.region, index.key) == ("misindexed", None, manifest.key)
        assert tally.remaining == 2
        assert bench.engine.repairs == {}
        assert await bench.defects(REPAIR) == {("missing", TWO, True), ("misindexed", None, True)}
        assert bench.engine.repairs == {manifest.key: (TWO,)}
        assert await bench.defects() == {("missing", TWO, False)}

    play(fleet, scenario)


def test_an_archive_that_every_region_lost_is_not_repaired(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        for objects in bench.storage.objects.values():
            del objects[manifest.object_key]
        left = bench.leave(archive_of(manifest), ONE)
        assert await bench.defects(REPAIR) == {
            ("missing", ONE, False),
            ("missing", TWO, False),
            ("orphan", ONE, False),
        }
        assert bench.engine.repairs == {}
        assert left in bench.storage.objects[ONE]

    play(fleet, scenario)


def test_a_region_without_manifest_is_uncopied(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit(ONE)
        assert await bench.defects(REPAIR) == {("uncopied", TWO, True)}
        assert bench.engine.repairs == {manifest.key: (TWO,)}

    play(fleet, scenario)


@pytest.mark.parametrize("year", (2000, 9998))
def test_a_manifest_of_any_year_is_checked_at_once(fleet: Fleet, year: int) -> None:
    """A check waits for a commit to end, but not for a time that a manifest names."""

    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit(ONE)
        dated = replace(manifest, created_at=datetime(year, 1, 1, tzinfo=UTC))
        bench.storage.manifests[ONE][manifest.key] = dated
        async with asyncio.timeout(30):
            assert ("uncopied", TWO, False) in await bench.defects()

    play(fleet, scenario)


def test_an_object_of_another_size_is_damaged(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        bench.storage.objects[ONE][manifest.object_key] = b"cut"
        found = await bench.defects(REPAIR)
        assert found == {("damaged", ONE, True), ("misindexed", None, True)}
        assert bench.engine.repairs == {manifest.key: (ONE,)}

    play(fleet, scenario)


def test_wrong_bytes_are_found_by_reading_and_replaced(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        bench.storage.objects[ONE][manifest.object_key] = b"BYTES"
        assert await bench.defects() == set()
        assert await bench.defects(Scope(read=True, region=TWO)) == set()
        assert await bench.defects(Scope(read=True)) == {("damaged", ONE, False)}
        assert await bench.defects(Scope(read=True, repair=True)) == {("damaged", ONE, True)}
        assert bench.storage.objects[ONE][manifest.object_key] == DATA

    play(fleet, scenario)


def test_wrong_bytes_without_right_ones_stay(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        for region in (ONE, TWO):
            bench.storage.objects[region][manifest.object_key] = b"BYTES"
        found = await bench.defects(Scope(read=True, repair=True))
        assert found == {("damaged", ONE, False), ("damaged", TWO, False)}
        assert bench.storage.objects[ONE][manifest.object_key] == b"BYTES"

    play(fleet, scenario)


def test_another_manifest_is_differing_and_stays(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        other = replace(manifest, sha256="1" * 64)
        bench.storage.manifests[TWO][manifest.key] = other
        found = await bench.defects(REPAIR)
        assert found == {("differing", TWO, False), ("misindexed", None, True)}
        assert bench.storage.manifests[TWO][manifest.key] == other

    play(fleet, scenario)


def test_a_damaged_manifest_is_unreadable_and_keeps_all_objects(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        archive = archive_of(manifest)
        left = bench.leave(archive, ONE)
        bench.storage.unreadable.add(archive)
        assert await bench.defects(REPAIR) == {("unreadable", r, False) for r in (ONE, TWO)}
        assert left in bench.storage.objects[ONE]

    play(fleet, scenario)


@pytest.mark.parametrize("committed", (True, False))
def test_old_objects_that_no_manifest_names_are_removed(fleet: Fleet, *, committed: bool) -> None:
    async def scenario(bench: Bench) -> None:
        archive = an_archive()
        if committed:
            await bench.commit(archive=archive)
        left = bench.leave(archive, TWO)
        assert await bench.defects() == {("orphan", TWO, False)}
        assert await bench.defects(Scope(repair=True, region=ONE)) == set()
        assert left in bench.storage.objects[TWO]
        assert await bench.defects(REPAIR) == {("orphan", TWO, True)}
        assert left not in bench.storage.objects[TWO]
        assert await bench.defects() == set()

    play(fleet, scenario)


def test_an_object_of_a_build_that_may_run_is_no_orphan(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        bench.leave(an_archive(), ONE, age=DAY / 2)
        assert await bench.defects(REPAIR) == set()

    play(fleet, scenario)


def test_an_object_that_only_another_region_names_is_no_orphan(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit(ONE)
        bench.storage.objects[TWO][manifest.object_key] = DATA
        bench.storage.contents.modified_at[manifest.object_key] = datetime.now(UTC) - 2 * DAY
        assert await bench.defects(REPAIR) == {("uncopied", TWO, True)}
        assert manifest.object_key in bench.storage.objects[TWO]

    play(fleet, scenario)


def test_old_unfinished_uploads_are_aborted(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        key, now = f"archives/{an_archive().key}/a1/x.zip", datetime.now(UTC)
        bench.storage.contents.uploads[ONE] = uploads = [
            UnfinishedUpload(object_key=key, upload_id=str(age), initiated_at=now - age)
            for age in (2 * DAY, DAY / 2)
        ]
        assert await bench.defects() == {("unfinished", ONE, False)}
        assert await bench.defects(REPAIR) == {("unfinished", ONE, True)}
        assert bench.storage.contents.uploads[ONE] == uploads[-1:]

    play(fleet, scenario)


def test_foreign_objects_are_reported_and_stay(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        keys = ("notes.txt", "archives/notes.txt")
        for key in keys:
            bench.storage.objects[ONE][key] = DATA
            bench.storage.contents.modified_at[key] = datetime.now(UTC) - 9 * DAY
        defects, _ = await bench.run(REPAIR)
        assert {defect.key for defect in defects} == set(keys)
        assert summary(defects) == {("foreign", ONE, False)}
        assert set(keys) <= bench.storage.objects[ONE].keys()

    play(fleet, scenario)


def test_an_archive_that_the_index_lacks_is_indexed(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        entry = await bench.store.read(archive_of(manifest).key_hash)
        assert entry
        await bench.store.remove(entry)
        assert await bench.defects() == {("unindexed", None, False)}
        assert await bench.defects(Scope(region=ONE)) == set()
        assert await bench.defects(REPAIR) == {("unindexed", None, True)}
        assert await bench.defects() == set()

    play(fleet, scenario)


def test_an_archive_that_is_not_found_by_its_sha256_is_indexed(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        key = bench.store.sha256_key(manifest.sha256, archive_of(manifest))
        entry = await bench.store.read(key)
        assert entry
        await bench.store.remove(entry)
        assert await bench.defects(REPAIR) == {("unindexed", None, True)}
        assert await bench.defects() == set()

    play(fleet, scenario)


def test_a_region_that_does_not_list_its_bucket_ends_the_check(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.commit()
        bench.storage.down.add(TWO)
        with pytest.raises(StorageUnavailable):
            await bench.run(REPAIR)

    play(fleet, scenario)


def test_a_region_that_lists_but_shows_no_object_is_no_loss(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        manifest = await bench.commit()
        bench.storage.blind.add(TWO)
        assert await bench.defects(REPAIR) == set()  # the listing shows that all is well
        listed = bench.storage.objects[TWO].pop(manifest.object_key)
        defects, tally = await bench.run(REPAIR)
        assert (defects, tally.unanswered) == ([], 1)
        assert bench.engine.repairs == {}
        assert listed

    play(fleet, scenario)


def test_a_check_can_be_limited_to_a_source(fleet: Fleet) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.commit(ONE, archive=an_archive("git"))
        bench.storage.objects[ONE]["notes.txt"] = DATA
        assert await bench.defects(Scope(source="hgmo")) == set()
        assert await bench.defects(Scope(source="git")) == {("uncopied", TWO, False)}

    play(fleet, scenario)
