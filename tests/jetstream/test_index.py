"""How an index finds copies: in the engine, else in the buckets, on a real server."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.link import Servers
from archiver.jetstream.streams import DIGESTS, INDEX, REVS
from archiver.model import Archive
from archiver.ports.index import Resolved
from archiver.ports.storage import StoredState
from archiver.testing import MemoryStorage
from tests.jetstream.indexes import committed, index_of
from tests.parts.fleet import PATIENT, Fleet, an_archive
from tests.parts.nats import Nats
from tests.parts.process import free_port


def test_copies_that_only_the_buckets_know_are_found_and_indexed(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            assert await index.copies(archive) == copies
            assert await connection.kv.get(INDEX, archive.key_hash)

    asyncio.run(play())


@pytest.mark.thorough
def test_after_a_failed_read_the_engine_is_not_written_to(fleet: Fleet, nats: Nats) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        resolved = Resolved(node=archive.node, at=datetime.now(UTC))
        async with fleet.connection() as connection:
            await connection.streams.ensure()
            index = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            nats.freeze()
            try:
                found, _ = await asyncio.gather(
                    index.copies(archive), index.remember("hgmo", "projects/ash", "tip", resolved)
                )
            finally:
                nats.thaw()
            assert found == copies
            assert await index.node("hgmo", "projects/ash", "tip") == resolved
            await connection.link.wait(timedelta(seconds=10))
            await connection.link.js.account_info()  # earlier messages have arrived by then
            for bucket in (INDEX, DIGESTS, REVS):
                assert not await connection.kv.keys(bucket, ">")

    asyncio.run(play())


def test_the_buckets_answer_while_the_engine_is_silent(fleet: Fleet, nats: Nats) -> None:
    given_up: list[bool] = []

    async def play() -> None:
        async with fleet.connection() as connection:
            await connection.streams.ensure()

            class Storage(MemoryStorage):
                async def find(self, archive: Archive) -> StoredState:
                    given_up.append(asking.done())
                    return await super().find(archive)

            storage, archive = Storage(), an_archive()
            copies = await committed(storage, archive)
            index = JetStreamIndex(connection=connection, storage=storage)
            nats.freeze()
            try:
                asking = asyncio.create_task(connection.kv.get(INDEX, archive.key_hash))
                assert await index.copies(archive) == copies
            finally:
                nats.thaw()
            await asyncio.wait({asking})

    asyncio.run(play())
    assert given_up == [False]


def test_an_empty_engine_loses_no_archive(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        async with index_of(fleet, storage) as index:
            copies = await committed(storage, archive)
            await index.record(archive, copies)
        async with fleet.connection() as connection:
            await connection.link.js.delete_stream(f"KV_{fleet.namespace}_{INDEX}")
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) == copies

    asyncio.run(play())


def test_without_an_engine_hits_are_found_in_the_buckets(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) == copies

    asyncio.run(play())


def test_without_an_engine_memory_is_not_trusted_for_long(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
        async with index_of(fleet, storage, trusted_for=timedelta(0)) as index:
            assert await index.copies(archive) == copies
            storage.down.update(storage.regions)
            assert await index.copies(archive) == copies
            storage.down.clear()
            await storage.withdraw(archive, copies.manifest)
            assert await index.copies(archive) is None
            assert await index.copies(archive) is None

    asyncio.run(play())
