"""Archives are found by the SHA-256 of their bytes, on a real server."""

import asyncio

import pytest

from archiver.errors import EngineUnavailable
from archiver.jetstream.link import Servers
from archiver.jetstream.sha256_index import ARCHIVES_MAX, Sha256Index
from archiver.testing import MemoryStorage
from tests.jetstream.indexes import committed, index_of
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive, copies_of
from tests.parts.process import free_port


def test_a_recorded_sha256_is_known_to_every_process_at_once(
    fleet: Fleet,
) -> None:
    async def play() -> None:
        storage, archive, digest = MemoryStorage(), an_archive(), "7" * 64
        async with index_of(fleet, storage) as web, index_of(fleet, storage) as worker:
            assert await web.by_sha256(digest) == ()
            await worker.record(archive, copies_of(archive, "us-east-1", sha256=digest))
            async with asyncio.timeout(HUNG_AFTER_S):
                while await web.by_sha256(digest) != (archive,):
                    await asyncio.sleep(0.005)

    asyncio.run(play())


def test_an_archive_found_in_the_buckets_is_known_by_its_sha256(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        async with index_of(fleet, storage) as index:
            assert await index.by_sha256(copies.manifest.sha256) == ()
            await index.copies(archive)
            assert await index.by_sha256(copies.manifest.sha256) == (archive,)

    asyncio.run(play())


def test_a_recheck_finds_a_sha256_again_that_the_engine_lost(fleet: Fleet) -> None:
    """It was away between two writes, or its bucket was full and dropped the oldest entry."""

    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        sha256 = copies.manifest.sha256
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            await index.record(archive, copies)
            await Sha256Index(connection=connection).remove(sha256, archive)
            assert await Sha256Index(connection=connection).find(sha256) == ()
            entry = await index.latest(archive)
            assert entry
            await index.replace(archive, entry, copies)
            assert await Sha256Index(connection=connection).find(sha256) == (archive,)

    asyncio.run(play())


def test_of_many_archives_with_the_same_bytes_some_are_returned(fleet: Fleet) -> None:
    async def play() -> None:
        storage, digest = MemoryStorage(), "7" * 64
        crowd = [an_archive() for _ in range(ARCHIVES_MAX + 1)]
        async with index_of(fleet, storage) as index:
            for archive in crowd:
                await index.record(archive, copies_of(archive, sha256=digest))
            named = await index.by_sha256(digest)
            assert len(named) == ARCHIVES_MAX
            assert set(named) <= set(crowd)

    asyncio.run(play())


def test_without_an_engine_a_sha256_is_not_reported_as_unknown(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def play() -> None:
        async with index_of(fleet, MemoryStorage()) as index:
            with pytest.raises(EngineUnavailable):
                await index.by_sha256("7" * 64)

    asyncio.run(play())
