"""The stored archives are listed page by page, on servers with any order of keys."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import BucketContents, StoredObject
from archiver.ports.storage import Storage
from archiver.storage.regional_storage import open_storage
from archiver.testing import MemoryLastUses, MemoryStorage
from archiver.testing.bucket_contents import MemoryContents
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.catalogue_page import Bounds, CataloguePages, Page
from archiver.upkeep.inventory import by_folder
from archiver.upkeep.manifest_keys import Cursor
from tests.cli.test_fsck import EAST, store
from tests.parts.fleet import an_archive, copies_of
from tests.parts.s3 import Home

ONE, TWO = Region("one"), Region("two")
REPOS = ("a", "a-b", "a/b", "a.git", "a/b-c", "a-b/c", "b")
SUFFIXES = ("tar", "tar.gz", "zip")
TURNS_MAX = 100
KEY = f"v1/hgmo/projects/ash/-/{'a' * 40}/-/zip"


def some_archives() -> list[Archive]:
    """Return archives whose keys have another order by bytes than by folders."""
    return [replace(an_archive(), repo=repo, suffix=s) for repo in REPOS for s in SUFFIXES]


def put(storage: MemoryStorage, archive: Archive, **changes: object) -> None:
    manifest = replace(copies_of(archive).manifest, **changes)  # type: ignore[arg-type]
    storage.manifests[ONE][archive.key] = manifest


def pages_of(
    storage: Storage, contents: BucketContents, *, bounds: Bounds | None = None
) -> CataloguePages:
    uses = MemoryLastUses()
    return CataloguePages(storage=storage, contents=contents, uses=uses, bounds=bounds)


async def walk(
    pages: CataloguePages, selection: Selection | None = None, *, limit: int
) -> list[Page]:
    """Return all pages. Each cursor travels as text."""
    found, after = list[Page](), None
    for _ in range(TURNS_MAX):
        found.append(await pages.page(selection or Selection(), after=after, limit=limit))
        if found[-1].following is None:
            return found
        after = Cursor.parse(str(found[-1].following))
        assert after
    raise AssertionError("the pages have no end")


def archives(pages: list[Page]) -> list[Archive]:
    return [entry.archive for page in pages for entry in page.entries]


class Unordered:
    """Contents that are listed in another order, and always from the first key."""

    def __init__(self, contents: MemoryContents, rank: Callable[[str], object]) -> None:
        self.contents = contents
        self.rank = rank
        self.regions = contents.regions
        self.read_manifest = contents.read_manifest

    async def iter_manifests(
        self,
        region: Region,
        source: str | None = None,
        *,
        after: Archive | None = None,  # noqa: ARG002 - not supported
    ) -> AsyncGenerator[StoredObject, None]:
        listed = [each async for each in self.contents.iter_manifests(region, source)]
        for each in sorted(listed, key=lambda stored: self.rank(stored.object_key)):  # type: ignore[arg-type,return-value]
            yield each


@pytest.mark.parametrize("limit", (1, 2, 7, 20, 21, 22, 100))
@pytest.mark.parametrize("rank", (str, by_folder), ids=("bytes", "folders"))
def test_pages_have_every_archive_once(rank: Callable[[str], object], limit: int) -> None:
    async def scenario() -> None:
        storage, stored = MemoryStorage(regions=(ONE,)), some_archives()
        for archive in stored:
            put(storage, archive)
        unordered: BucketContents = Unordered(storage.contents, rank)  # type: ignore[assignment]
        for contents in (storage.contents, unordered):
            found = await walk(
                pages_of(storage, contents),
                limit=limit,
            )
            assert sorted(archives(found), key=str) == sorted(stored, key=str)
            assert all(len(page.entries) <= limit for page in found)

    asyncio.run(scenario())


def test_an_unknown_order_is_an_error_and_no_endless_list() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE,))
        for archive in some_archives():
            put(storage, archive)
        random: BucketContents = Unordered(storage.contents, lambda _: secrets.token_bytes(8))  # type: ignore[assignment]
        with pytest.raises(StorageUnavailable):
            await walk(pages_of(storage, random), limit=3)

    asyncio.run(scenario())


def test_a_selection_applies_to_every_page() -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE, TWO))
        large = an_archive()
        put(storage, large, size_bytes=10**12)
        for _ in range(5):
            put(storage, an_archive())
            put(storage, an_archive("git"), size_bytes=10**12)
        selection = Selection(source="hgmo", min_bytes=10**12)
        pages = pages_of(storage, storage.contents)
        assert archives(await walk(pages, selection, limit=1)) == [large]
        old = replace(selection, older=timedelta(days=1))
        assert archives(await walk(pages, old, limit=1)) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("bounds", (Bounds(keys=3), Bounds(read=3)))
def test_a_page_ends_early_rather_than_to_cost_more(bounds: Bounds) -> None:
    async def scenario() -> None:
        storage = MemoryStorage(regions=(ONE,))
        for _ in range(10):
            put(storage, an_archive())
        pages = CataloguePages(
            storage=storage, contents=storage.contents, uses=MemoryLastUses(), bounds=bounds
        )
        found = await walk(pages, Selection(min_bytes=100), limit=5)
        assert [len(page.entries) for page in found] == [0, 0, 0, 0]
        found = await walk(pages, limit=5)
        assert [len(page.entries) for page in found] == [3, 3, 3, 1]

    asyncio.run(scenario())


@pytest.mark.parametrize("keys", (2, 3, 5))
def test_archives_that_are_left_out_are_no_cursors(keys: int) -> None:
    async def scenario() -> None:
        storage, plain = MemoryStorage(regions=(ONE,)), [an_archive() for _ in range(5)]
        for archive in plain:
            put(storage, archive)
            put(storage, replace(archive, submodules=True))
        pages = pages_of(storage, storage.contents, bounds=Bounds(keys=keys))
        found = await walk(pages, Selection(submodules=False), limit=5)
        assert sorted(archives(found), key=str) == sorted(plain, key=str)
        assert not [page for page in found if "~submodules" in str(page.following)]
        everything = await walk(pages, limit=5)
        assert len(archives(everything)) == 2 * len(plain)

    asyncio.run(scenario())


def test_manifests_that_cannot_be_read_are_counted() -> None:
    async def scenario() -> Page:
        storage, archive = MemoryStorage(regions=(ONE,)), an_archive()
        put(storage, archive)
        storage.unreadable.add(archive)
        pages = pages_of(storage, storage.contents)
        return await pages.page(Selection(), limit=1)

    page = asyncio.run(scenario())
    assert (page.entries, page.unreadable, page.following) == ([], 1, None)


@pytest.mark.parametrize("text", ("", "b", f"x{KEY}", "bv1/x", "b../../x"))
def test_other_texts_are_no_cursors(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.parametrize("server", ("weed", "rclone"))
@pytest.mark.thorough
def test_real_servers_are_listed_page_by_page(request: pytest.FixtureRequest, server: str) -> None:
    home: Home = request.getfixturevalue(server).make_home()
    stored = some_archives()

    async def scenario() -> None:
        for archive in stored:
            await store(home, archive, EAST)
        async with open_storage([home.bucket(EAST)]) as storage:
            pages = CataloguePages(
                storage=storage, contents=storage.contents, uses=MemoryLastUses()
            )
            for limit in (1, 4, 50):
                found = archives(await walk(pages, limit=limit))
                assert len(found) == len(stored)
                assert set(found) == set(stored)

    asyncio.run(scenario())
