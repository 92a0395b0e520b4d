"""The LFS files of an archive: fetched once, before they are read."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver.errors import (
    ArchiverError,
    ArchiveTooLarge,
    BadLfsFile,
    LfsFileMissing,
    SourceUnavailable,
)
from archiver.git_objects.lfs_pointer import Pointer
from archiver.model import Limits
from archiver.sources.git.lfs.batch import OBJECTS_MAX
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.cache_folder import LfsOwner
from archiver.sources.git.lfs.client import LfsClient
from archiver.sources.git.lfs.files import DOWNLOADS_MAX, LINKS_MAX, LfsFiles
from tests.parts.faulty_host import FaultyHost, Until, sized
from tests.parts.git_host import REPO, GitHost
from tests.parts.lfs_host import Json
from tests.sources.git_hosts import SOURCE
from tests.sources.lfs_files import entry, lfs_client

LARGE = bytes(range(256)) * 10_000
"""More than two chunks."""

OWNER = LfsOwner(source=SOURCE, repo=REPO)


@dataclass(frozen=True, kw_only=True)
class World:
    client: LfsClient
    cache: LfsCache

    def files(self, *pointers: Pointer, limits: Limits | None = None, repo: str = REPO) -> LfsFiles:
        entries = [entry(each, b"%d.bin" % number) for number, each in enumerate(pointers)]
        return LfsFiles(self.client, self.cache, repo, entries, limits or Limits())


@asynccontextmanager
async def world(
    host: GitHost, folder: Path, *, max_bytes: int = 1 << 30, lfs_hosts: tuple[str, ...] = ()
) -> AsyncIterator[World]:
    cache = LfsCache(folder=folder / "lfs", max_bytes=max_bytes)
    async with lfs_client(host.template, lfs_hosts=lfs_hosts) as client:
        yield World(client=client, cache=cache)


async def read(files: LfsFiles, pointer: Pointer) -> bytes:
    chunks = [chunk async for chunk in files.chunks(pointer)]
    assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)
    return b"".join(chunks)


def add_many(host: GitHost, count: int) -> Sequence[Pointer]:
    return [host.lfs.add(REPO, b"file %d" % number) for number in range(count)]


def test_files_are_fetched_once_and_read_often(git_host: GitHost, tmp_path: Path) -> None:
    large, small = git_host.lfs.add(REPO, LARGE), git_host.lfs.add(REPO, b"small")

    async def play() -> None:
        received: list[int] = []
        async with world(git_host, tmp_path) as here:
            files = here.files(large, small, large)
            await files.fetch(received.append)
            assert received == sorted(received)
            assert received[-1] == len(LARGE) + len(b"small")
            assert await read(files, large) == LARGE
            assert await read(files, small) == b"small"
            assert await read(files, large) == LARGE

            again = here.files(large, small)
            await again.fetch()
            assert await read(again, large) == LARGE

    asyncio.run(play())
    assert len(git_host.lfs.batches) == 1
    assert len(git_host.lfs.downloads) == 2


def test_another_repository_fetches_its_own(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add("group/private", b"secret")

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            await here.files(pointer, repo="group/private").fetch()
            with pytest.raises(LfsFileMissing):
                await here.files(pointer).fetch()
            with pytest.raises(LfsFileMissing):
                await read(here.files(pointer), pointer)

    asyncio.run(play())


def test_a_missing_file_is_found_before_the_first_download(
    git_host: GitHost, tmp_path: Path
) -> None:
    pointers = [*add_many(git_host, 2 * OBJECTS_MAX), Pointer("0" * 64, 1)]

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            await here.files(*pointers).fetch()

    with pytest.raises(LfsFileMissing, match=r"'200\.bin'"):
        asyncio.run(play())
    assert len(git_host.lfs.batches) == 3
    assert git_host.lfs.downloads == []


@pytest.mark.thorough
def test_links_of_many_files_are_asked_for_again(git_host: GitHost, tmp_path: Path) -> None:
    pointers = add_many(git_host, LINKS_MAX + 2 * OBJECTS_MAX)

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            files = here.files(*pointers)
            await files.fetch()
            assert await read(files, pointers[-1]) == b"file %d" % (len(pointers) - 1)

    asyncio.run(play())
    assert len(git_host.lfs.batches) == LINKS_MAX // OBJECTS_MAX + 4
    assert len(git_host.lfs.downloads) == len(pointers)


def test_a_few_files_are_downloaded_at_a_time(
    git_host: GitHost, other: FaultyHost, tmp_path: Path
) -> None:
    pointers = add_many(git_host, 3 * DOWNLOADS_MAX)
    enough = threading.Event()
    for number, pointer in enumerate(pointers):
        other.script(f"/{pointer.sha256}", Until(enough), sized(b"file %d" % number))

    def elsewhere(answer: Json) -> None:
        for each in answer["objects"]:
            each["actions"] = {"download": {"href": f"{other.url}/{each['oid']}"}}

    git_host.lfs.change = elsewhere

    async def play() -> None:
        async with world(git_host, tmp_path, lfs_hosts=(f"127.0.0.1:{other.port}",)) as here:
            fetching = asyncio.create_task(here.files(*pointers).fetch())
            while other.most_at_once < DOWNLOADS_MAX and not fetching.done():
                await asyncio.sleep(0.01)
            enough.set()
            await fetching

    asyncio.run(play())
    assert other.most_at_once == DOWNLOADS_MAX


def test_two_builds_fetch_a_file_once(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add(REPO, LARGE)

    async def play() -> None:
        async with world(git_host, tmp_path) as here, world(git_host, tmp_path) as there:
            builds = [each.files(pointer) for each in (here, there, here, there)]
            await asyncio.gather(*(files.fetch() for files in builds))

    asyncio.run(play())
    assert len(git_host.lfs.downloads) == 1


def test_an_error_of_one_download_ends_the_others(git_host: GitHost, tmp_path: Path) -> None:
    pointers = add_many(git_host, 20)
    git_host.lfs.path(REPO, pointers[7].sha256).write_bytes(b"other!!")

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            with pytest.raises(BadLfsFile, match=r"'7\.bin'"):
                await here.files(*pointers).fetch()
            assert list((here.cache.folder.path / "new").iterdir()) == []

    asyncio.run(play())


@pytest.mark.parametrize(
    ("max_bytes", "limits", "named"),
    (
        (1 << 30, Limits(unpacked_bytes=13), "max_unpacked_bytes is 13"),
        (6, Limits(), "worker.lfs_max_bytes"),
    ),
)
def test_files_that_are_too_large_cause_no_request(
    git_host: GitHost, tmp_path: Path, max_bytes: int, limits: Limits, named: str
) -> None:
    pointer = git_host.lfs.add(REPO, b"content")

    async def play() -> None:
        async with world(git_host, tmp_path, max_bytes=max_bytes) as here:
            await here.files(pointer, pointer, limits=limits).fetch()

    with pytest.raises(ArchiveTooLarge, match=named):
        asyncio.run(play())
    assert git_host.lfs.requests == []


def test_a_file_at_two_paths_needs_room_once(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add(REPO, b"content")

    async def play() -> bytes:
        async with world(git_host, tmp_path, max_bytes=7) as here:
            files = here.files(pointer, pointer, limits=Limits(unpacked_bytes=14))
            await files.fetch()
            return await read(files, pointer)

    assert asyncio.run(play()) == b"content"


def test_pointers_that_disagree_about_a_size_are_an_error(
    git_host: GitHost, tmp_path: Path
) -> None:
    pointer = git_host.lfs.add(REPO, b"content")

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            await here.files(pointer, Pointer(pointer.sha256, 6)).fetch()

    with pytest.raises(LfsFileMissing, match="differ in its size"):
        asyncio.run(play())
    assert git_host.lfs.requests == []


def test_an_empty_file_is_not_fetched(git_host: GitHost, tmp_path: Path) -> None:
    empty = Pointer(hashlib.sha256().hexdigest(), 0)

    async def play() -> bytes:
        async with world(git_host, tmp_path) as here:
            files = here.files(empty)
            await files.fetch()
            return await read(files, empty)

    assert asyncio.run(play()) == b""
    assert git_host.lfs.requests == []


def stored(cache: LfsCache, pointer: Pointer) -> Path:
    return cache.folder.path / "files" / OWNER.slot / pointer.sha256


def test_a_file_that_has_gone_is_fetched_again(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add(REPO, LARGE)

    async def play() -> bytes:
        async with world(git_host, tmp_path) as here:
            files = here.files(pointer)
            await files.fetch()
            stored(here.cache, pointer).unlink()
            return await read(files, pointer)

    assert asyncio.run(play()) == LARGE
    assert len(git_host.lfs.downloads) == 2


def test_a_file_that_was_cut_is_fetched_again(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add(REPO, LARGE)

    async def play() -> bytes:
        async with world(git_host, tmp_path) as here:
            files = here.files(pointer)
            await files.fetch()
            stored(here.cache, pointer).write_bytes(LARGE[:-1])
            return await read(files, pointer)

    assert asyncio.run(play()) == LARGE


def test_a_file_that_has_changed_fails_one_build(git_host: GitHost, tmp_path: Path) -> None:
    pointer = git_host.lfs.add(REPO, LARGE)

    async def play() -> bytes:
        async with world(git_host, tmp_path) as here:
            files = here.files(pointer)
            await files.fetch()
            stored(here.cache, pointer).write_bytes(LARGE[:-1] + b"!")
            with pytest.raises(BadLfsFile, match="changed on the worker's disk"):
                await read(files, pointer)
            again = here.files(pointer)
            await again.fetch()
            return await read(again, pointer)

    assert asyncio.run(play()) == LARGE


ERRORS: Mapping[str, tuple[int, type[ArchiverError]]] = {
    "missing": (404, LfsFileMissing),
    "broken": (500, SourceUnavailable),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_while_a_file_is_read_is_that_of_the_host(
    git_host: GitHost, tmp_path: Path, name: str
) -> None:
    code, expected = ERRORS[name]
    pointer = git_host.lfs.add(REPO, LARGE)

    def fail(answer: Json) -> None:
        answer["objects"][0]["error"] = {"code": code, "message": "no"}

    async def play() -> None:
        async with world(git_host, tmp_path) as here:
            files = here.files(pointer)
            await files.fetch()
            stored(here.cache, pointer).unlink()
            git_host.lfs.change = fail
            await read(files, pointer)

    with pytest.raises(expected):
        asyncio.run(play())
