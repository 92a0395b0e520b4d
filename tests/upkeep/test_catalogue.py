"""The stored archives are listed from one region."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Region
from archiver.testing import MemoryLastUses, MemoryStorage
from archiver.upkeep.catalogue import Catalogue, Selection
from archiver.upkeep.known_uses import read_uses
from tests.parts.fleet import an_archive, copies_of

ONE, TWO = Region("one"), Region("two")


def store(
    storage: MemoryStorage,
    archive: Archive,
    *,
    region: Region = ONE,
    size_bytes: int = 1,
    age: timedelta = timedelta(0),
) -> Archive:
    manifest = replace(
        copies_of(archive).manifest, size_bytes=size_bytes, created_at=datetime.now(UTC) - age
    )
    storage.manifests[region][archive.key] = manifest
    return archive


async def listed(storage: MemoryStorage, selection: Selection) -> list[Archive]:
    catalogue = Catalogue(storage=storage, contents=storage.contents)
    return [entry.archive async for entry in catalogue.entries(selection)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    (
        (Selection(), "ab"),
        (Selection(source="hgmo"), "a"),
        (Selection(repo="mozilla/*"), "a"),
        (Selection(repo="*u*"), "b"),
        (Selection(suffix="zip"), "b"),
        (Selection(older=timedelta(days=1)), "b"),
        (Selection(min_bytes=100), "a"),
        (Selection(min_bytes=101), ""),
    ),
)
def test_archives_are_selected(selection: Selection, expected: str) -> None:
    storage = MemoryStorage(regions=(ONE, TWO))
    a = replace(an_archive(), repo="mozilla/x/y", suffix="tar")
    b = replace(an_archive("git"), repo="u/v")
    store(storage, a, size_bytes=100)
    store(storage, b, age=timedelta(days=2))
    found = asyncio.run(listed(storage, selection))
    assert set(found) == {{"a": a, "b": b}[name] for name in expected}


def test_archives_come_in_the_order_of_the_listing() -> None:
    storage = MemoryStorage(regions=(ONE,))
    archives = [store(storage, an_archive()) for _ in range(200)]
    found = asyncio.run(listed(storage, Selection()))
    assert found == sorted(archives, key=lambda archive: archive.key)


def test_the_first_region_that_answers_is_listed() -> None:
    storage = MemoryStorage(regions=(ONE, TWO))
    store(storage, an_archive())
    archive = store(storage, an_archive(), region=TWO)
    storage.down.add(ONE)
    assert asyncio.run(listed(storage, Selection())) == [archive]
    storage.down.add(TWO)
    with pytest.raises(StorageUnavailable):
        asyncio.run(listed(storage, Selection()))


def test_unreadable_manifests_are_counted() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE,))
        archive = store(storage, an_archive())
        storage.unreadable.add(archive)
        catalogue = Catalogue(storage=storage, contents=storage.contents)
        assert [entry async for entry in catalogue.entries(Selection())] == []
        assert catalogue.unreadable == 1

    asyncio.run(scenario())


def test_unused_archives_are_selected_by_their_last_use() -> None:
    async def scenario() -> None:
        storage, today = MemoryStorage(regions=(ONE,)), datetime.now(UTC).date()
        old = timedelta(days=40)
        used, unused = (store(storage, an_archive(), age=old) for _ in range(2))
        uses = MemoryLastUses()
        await uses.record([], today - old)
        await uses.record([used.key_hash], today - timedelta(days=9))
        catalogue = Catalogue(
            storage=storage,
            contents=storage.contents,
            uses=await read_uses(uses, today=today),
        )
        selection = Selection(unused=timedelta(days=10))
        entries = [entry async for entry in catalogue.entries(selection)]
        assert [(entry.archive, entry.last_use) for entry in entries] == [(unused, today - old)]

    asyncio.run(scenario())
