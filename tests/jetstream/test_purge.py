"""A purge reaches the memory of every process, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.errors import PurgeUnfinished
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import relay
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.streams import DIGESTS, INDEX, REPAIRS, STATES
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.limiter import ClientLimits, Limiter
from archiver.model import Archive, Region
from archiver.ports.storage import StoredState
from archiver.purge import PurgeOrder, Purger
from archiver.service import Archiver
from archiver.testing import FakeConverter, GzipVerifier, MemoryEngine, MemoryStorage
from archiver.upkeep.rebuild import Rebuilder
from archiver.web.app import Services, create_app
from tests.jetstream.indexes import committed, index_of
from tests.memory_world import World
from tests.parts.fleet import HUNG_AFTER_S, PATIENT, Fleet, an_archive
from tests.web.client import CONFIG, Client, open_access

ORDER = PurgeOrder(principal="cli", reason="a test")


@asynccontextmanager
async def purger_of(fleet: Fleet, storage: MemoryStorage) -> AsyncIterator[Purger]:
    """Yield the purger of a process of its own."""
    async with fleet.connection() as connection:
        yield new_purger(connection, storage)


def new_purger(connection: Connection, storage: MemoryStorage) -> Purger:
    return Purger(
        storage=storage,
        index=JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT),
        queue=JetStreamTaskQueue(connection=connection),
        repairs=JetStreamRepairList(connection=connection),
    )


def archiver_of(world: World, connection: Connection) -> Archiver:
    """Return the Archiver of a web process that has the world's buckets and this connection."""
    relayed = world.notifications
    index = JetStreamIndex(connection=connection, storage=world.storage, hedge_after=PATIENT)
    relay(connection.feed, relayed)
    return Archiver(
        sources={world.source.name: world.source},
        storage=world.storage,
        index=index,
        queue=JetStreamTaskQueue(connection=connection),
        repairs=JetStreamRepairList(connection=connection),
        limiter=Limiter(limits=ClientLimits(), counters=MemoryEngine()),
        fleet=MemoryEngine(),
        verify=GzipVerifier,
        converter=FakeConverter(),
        notifications=relayed,
        nearest={},
    )


async def _store(world: World) -> Archive:
    """Have the world's archive in the buckets only."""
    archive = world.archive()
    await committed(world.storage, archive)
    return archive


def test_another_process_drops_the_redirects_that_it_remembers(fleet: Fleet) -> None:
    """They would be repeated for an hour otherwise."""
    world = World()

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        async with fleet.connection() as connection:
            yield archiver_of(world, connection), world.operations

    app = create_app(
        open_services=open_services,
        config=replace(CONFIG, hit_ttl=timedelta(hours=1)),
        access=open_access(world),
    )

    async def purge(archive: Archive) -> None:
        async with purger_of(fleet, world.storage) as purger:
            assert await purger.purge(archive, ORDER)

    with asyncio.Runner() as runner:
        web = Client(world=world, runner=runner, app=app)
        web.begin()
        archive = web.run(_store(world))
        (sha256,) = web.run(world.storage.traces(archive)).sha256s
        targets = (
            f"/archiver/hgmo/{archive.repo}/{archive.node}?on_miss=none",
            f"/sha256/{sha256}",
        )
        for target in targets * 3:
            assert web.get(target).status == 302
        web.run(purge(archive))
        for target in targets:
            web.run(_until(web, target, 404))
        web.end()


async def _until(web: Client, target: str, status: int) -> None:
    async with asyncio.timeout(HUNG_AFTER_S):
        while (await web.request_async(target)).status != status:
            await asyncio.sleep(0.005)


def test_nothing_of_the_archive_stays_in_the_engine(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        twin = an_archive()
        copies, same = [await committed(storage, each) for each in (archive, twin)]
        sha256 = copies.manifest.sha256
        async with fleet.connection() as connection, index_of(fleet, storage) as web:
            purger = new_purger(connection, storage)
            repairs = JetStreamRepairList(connection=connection)
            for each, held in ((archive, copies), (twin, same)):
                await web.record(each, held)
                await repairs.add(each, [Region("two")])
                await connection.kv.put(STATES, each.key_hash, b"ended")
            await purger.purge(archive, ORDER)

            kv = connection.kv
            for bucket in (INDEX, STATES, REPAIRS):
                assert await kv.get(bucket, archive.key_hash) is None
                assert await kv.get(bucket, twin.key_hash)
            assert await kv.keys(DIGESTS, f"{sha256}.*") == [f"{sha256}.{twin.key_hash}"]

    asyncio.run(play())


class _PausedStorage(MemoryStorage):
    """``find`` returns the state at the time of the call, but only after ``during`` has run."""

    def __init__(self) -> None:
        super().__init__(regions=("one", "two"))
        self.during: Callable[[], Awaitable[object]] | None = None

    async def find(self, archive: Archive) -> StoredState:
        found = await super().find(archive)
        if during := self.during:
            self.during = None
            await during()
        return found


def test_a_lookup_that_began_before_the_purge_does_not_store_what_it_found(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = _PausedStorage(), an_archive()
        await committed(storage, archive)
        async with index_of(fleet, storage) as web, purger_of(fleet, storage) as purger:
            storage.during = lambda: purger.purge(archive, ORDER)
            await web.copies(archive)
        async with index_of(fleet, storage) as another:
            assert await another.copies(archive) is None

    asyncio.run(play())


def test_a_build_that_saw_the_copies_before_the_purge_does_not_store_them(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        copies = await committed(storage, archive)
        async with index_of(fleet, storage) as worker, purger_of(fleet, storage) as purger:
            await worker.record(archive, copies)
            await purger.purge(archive, ORDER)
            await worker.record(archive, copies)
            assert await worker.copies(archive) is None
            again = await committed(storage, archive)
            await worker.record(archive, again)
        async with index_of(fleet, MemoryStorage(regions=("one", "two"))) as another:
            assert await another.copies(archive) == again

    asyncio.run(play())


def test_a_rebuild_does_not_index_an_archive_whose_purge_is_unfinished(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        await committed(storage, archive)
        storage.down.add(Region("two"))
        async with fleet.connection() as connection:
            purger = new_purger(connection, storage)
            with pytest.raises(PurgeUnfinished):
                await purger.purge(archive, ORDER)
            storage.down.clear()
            store = JetStreamIndexStore(connection=connection, storage=storage)
            tally = await Rebuilder(
                store=store, storage=storage, on_progress=lambda _tally: None
            ).rebuild()
            assert not tally.written
            assert await connection.kv.get(INDEX, archive.key_hash) is None

    asyncio.run(play())
