"""How the indexes of several processes stay coherent, on a real server."""

import asyncio
from datetime import UTC, datetime, timedelta

from archiver.jetstream.feed import COPIES, relay
from archiver.jetstream.index import JetStreamIndex
from archiver.model import Archive, Copies, Node, Region, rev_hash
from archiver.ports.index import Resolved
from archiver.ports.storage import StoredState
from archiver.runtime.notifications import Notifications
from archiver.testing import MemoryStorage
from tests.jetstream.indexes import committed, index_of, write_unpublished
from tests.parts.fleet import HUNG_AFTER_S, PATIENT, Fleet, an_archive, copies_of


def test_a_commit_updates_the_caches_of_other_processes(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        async with index_of(fleet, storage) as web, index_of(fleet, storage) as worker:
            assert await web.copies(archive) is None
            first = copies_of(archive, "one")
            await worker.record(archive, first)
            await _until_seen(web, archive, first)

            both = Copies(manifest=first.manifest, regions=storage.regions)
            await worker.record(archive, both)
            await _until_seen(web, archive, both)

    asyncio.run(play())


async def _until_seen(index: JetStreamIndex, archive: Archive, copies: Copies) -> None:
    async with asyncio.timeout(HUNG_AFTER_S):
        while await index.copies(archive) != copies:
            await asyncio.sleep(0.005)


def test_a_commit_notifies_waiters_in_other_processes(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive, notifications = MemoryStorage(), an_archive(), Notifications()
        async with fleet.connection() as connection, index_of(fleet, storage) as worker:
            web = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            relay(connection.feed, notifications)
            assert await web.copies(archive) is None
            with notifications.listen(archive.key_hash) as listener:
                await worker.record(archive, copies := copies_of(archive, "us-east-1"))
                assert await listener.wait(timedelta(seconds=5))
                assert await web.copies(archive) == copies

    asyncio.run(play())


def test_only_a_moved_branch_notifies_waiters(fleet: Fleet) -> None:
    async def play() -> None:
        notifications, storage = Notifications(), MemoryStorage()
        first, second = (
            Resolved(node=Node(digit * 40), at=datetime.now(UTC)) for digit in ("1", "2")
        )
        async with fleet.connection() as connection, index_of(fleet, storage) as other:
            web = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            relay(connection.feed, notifications)
            with notifications.listen(rev_hash("hg", "ash", "default")) as listener:
                await other.remember("hg", "ash", "default", first)
                assert await web.node("hg", "ash", "default") == first
                await other.remember("hg", "ash", "default", first)
                assert not await listener.wait(timedelta(milliseconds=50))
                await other.remember("hg", "ash", "default", second)
                assert await listener.wait(timedelta(seconds=5))
                assert await web.node("hg", "ash", "default") == second

    asyncio.run(play())


class _SlowStorage(MemoryStorage):
    """Returns the state at the time of the call, but only once it is allowed to."""

    def __init__(self) -> None:
        super().__init__(regions=("one", "two"))
        self.asked = asyncio.Event()
        self.allowed = asyncio.Event()

    async def find(self, archive: Archive) -> StoredState:
        found = await super().find(archive)
        self.asked.set()
        await self.allowed.wait()
        return found


def test_a_change_during_a_lookup_is_not_lost(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive, received = _SlowStorage(), an_archive(), asyncio.Event()
        copies = copies_of(archive, "one")
        async with fleet.connection() as connection, index_of(fleet, storage) as worker:
            web = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            connection.feed.subscribe(COPIES, lambda *_: received.set())
            looking = asyncio.create_task(web.copies(archive))
            await storage.asked.wait()
            await worker.record(archive, copies)
            await received.wait()
            later = asyncio.create_task(web.copies(archive))
            storage.allowed.set()
            assert await later == copies
            assert await looking == copies
            assert await web.copies(archive) == copies

    asyncio.run(play())


def test_a_lookup_does_not_overwrite_an_entry_recorded_during_it(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = _SlowStorage(), an_archive()
        storage.down.add(Region("two"))
        poorer = await committed(storage, archive)
        both = Copies(manifest=poorer.manifest, regions=storage.regions)
        async with index_of(fleet, storage) as web, fleet.connection() as connection:
            looking = asyncio.create_task(web.copies(archive))
            await storage.asked.wait()
            await write_unpublished(connection, archive, both)
            storage.allowed.set()
            assert await looking == both
        async with index_of(fleet, storage) as another:
            assert await another.copies(archive) == both

    asyncio.run(play())


def test_after_a_gap_in_the_feed_everything_is_forgotten(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        async with fleet.connection() as connection:
            index = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            await index.record(archive, copies_of(archive, "one"))
            await index.copies(archive)
            both = copies_of(archive, "one", "two")
            await write_unpublished(connection, archive, both)
            connection.link.gaps.notify()
            assert await index.copies(archive) == both

    asyncio.run(play())


def test_a_remembered_absence_does_not_cover_later_events(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            before = datetime.now(UTC)
            assert await index.copies(archive) is None
            copies = copies_of(archive, "one")
            await write_unpublished(connection, archive, copies)
            assert await index.copies(archive, since=before) is None
            assert await index.copies(archive, since=datetime.now(UTC)) == copies

    asyncio.run(play())
