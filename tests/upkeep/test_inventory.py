"""Listings of several regions, merged archive by archive."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import StoredObject
from archiver.testing import MemoryStorage
from archiver.upkeep.inventory import Counts, Inventory, Listed
from tests.parts.fleet import an_archive, copies_of

ONE, TWO = Region("one"), Region("two")
NAMES = ("ash", "ash-2", "ash.git", "ash+", "ash/b", "ash-2/c", "Zsh")
SUFFIXES = ("tar", "tar.gz", "tar.xz", "tar.zst", "zip")

Order = Callable[[list[StoredObject]], list[StoredObject]]


def by_folder(listing: list[StoredObject]) -> list[StoredObject]:
    return sorted(listing, key=lambda each: each.object_key.split("/"))


def shuffled(listing: list[StoredObject]) -> list[StoredObject]:
    return random.Random(7).sample(listing, len(listing))  # noqa: S311


class _Contents:
    """Those of *storage*; each region has an order of its own."""

    def __init__(self, storage: MemoryStorage, orders: dict[Region, Order]) -> None:
        self.storage = storage
        self.orders = orders
        self.regions = storage.regions
        for name in (
            "iter_strangers",
            "iter_uploads",
            "read_manifest",
            "delete_object",
            "abort_upload",
        ):
            setattr(self, name, getattr(storage.contents, name))

    async def iter_manifests(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        listing = [each async for each in self.storage.contents.iter_manifests(region, source)]
        for stored in self.orders[region](listing):
            yield stored

    async def iter_objects(
        self, region: Region, source: str | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        listing = [each async for each in self.storage.contents.iter_objects(region, source)]
        for stored in self.orders[region](listing):
            yield stored


def archives_of_all_kinds() -> list[Archive]:
    plain = an_archive()
    return [
        replace(plain, repo=name, subdir=subdir, suffix=suffix)
        for name in NAMES
        for subdir in ("", "a", "a-b", "a/b")
        for suffix in SUFFIXES
    ]


def store(storage: MemoryStorage, archive: Archive, *regions: Region) -> None:
    copies = copies_of(archive, *regions)
    for region in regions:
        storage.manifests[region][archive.key] = copies.manifest
        storage.objects[region][copies.manifest.object_key] = b"x"


async def listed(inventory: Inventory) -> list[Listed]:
    assert await inventory.survey() == []
    return [each async for each in inventory.archives()]


@pytest.mark.parametrize(
    "orders",
    (
        {ONE: list, TWO: list},
        {ONE: by_folder, TWO: by_folder},
        {ONE: list, TWO: by_folder},
        {ONE: shuffled, TWO: list},
    ),
)
def test_every_archive_comes_once_with_all_that_the_regions_have(
    orders: dict[Region, Order],
) -> None:
    storage = MemoryStorage(regions=(ONE, TWO))
    archives = archives_of_all_kinds()
    for number, archive in enumerate(archives):
        store(storage, archive, *((ONE, TWO), (ONE,), (TWO,))[number % 3])
    inventory = Inventory(contents=_Contents(storage, orders))  # type: ignore[arg-type]
    found = asyncio.run(listed(inventory))
    assert len(found) == len(archives)
    by_archive = {each.archive: each for each in found}
    for number, archive in enumerate(archives):
        regions = [[ONE, TWO], [ONE], [TWO]][number % 3]
        each = by_archive[archive]
        assert sorted(each.manifests) == sorted(each.objects) == regions
        assert all(len(objects) == 1 for objects in each.objects.values())


def test_the_survey_counts_and_yields_keys_that_name_no_archive() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE, TWO))
        store(storage, an_archive(), ONE, TWO)
        store(storage, an_archive("git"), ONE)
        storage.objects[TWO]["archives/readme"] = b"xyz"
        inventory = Inventory(contents=storage.contents)
        found = [(region, each.object_key) for region, each in await inventory.survey()]
        assert found == [(TWO, "archives/readme")]
        assert inventory.counts == {
            ONE: Counts(manifests=2, objects=2, size_bytes=2),
            TWO: Counts(manifests=1, objects=1, size_bytes=1),
        }
        assert len([each async for each in inventory.archives()]) == 2
        limited = Inventory(contents=storage.contents, source="git")
        assert len(await listed(limited)) == 1

    asyncio.run(scenario())


def test_an_order_that_changes_after_the_survey_is_no_loss() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE,))
        for archive in archives_of_all_kinds():
            store(storage, archive, ONE)
        contents = _Contents(storage, {ONE: list})
        inventory = Inventory(contents=contents)  # type: ignore[arg-type]
        assert await inventory.survey() == []
        contents.orders[ONE] = shuffled
        with pytest.raises(StorageUnavailable, match="order"):
            [each async for each in inventory.archives()]

    asyncio.run(scenario())


def test_a_region_that_does_not_answer_raises() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE, TWO))
        store(storage, an_archive(), ONE, TWO)
        storage.down.add(TWO)
        with pytest.raises(StorageUnavailable):
            await listed(Inventory(contents=storage.contents))

    asyncio.run(scenario())
