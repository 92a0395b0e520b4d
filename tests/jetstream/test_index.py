"""The three levels of the index, and how processes stay coherent, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import COPIES, relay
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.link import Servers
from archiver.jetstream.records import NEVER, CopiesRecord, decode_copies, encode
from archiver.jetstream.sha256_index import ARCHIVES_MAX
from archiver.jetstream.streams import DIGESTS, INDEX, REVS
from archiver.model import Archive, Copies, Node, Region, rev_hash
from archiver.ports.index import Resolved
from archiver.ports.storage import Commit, StoredState
from archiver.runtime.notifications import Notifications
from archiver.sealing import seal
from archiver.testing import FakeAttempt, MemoryStorage
from tests.parts.fleet import HUNG_AFTER_S, PATIENT, Fleet, an_archive, copies_of, delete
from tests.parts.nats import Nats
from tests.parts.process import free_port


@asynccontextmanager
async def index_of(fleet: Fleet, storage: MemoryStorage) -> AsyncIterator[JetStreamIndex]:
    async with fleet.connection() as connection:
        yield JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)


async def _committed(storage: MemoryStorage, archive: Archive) -> Copies:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"bytes"

    upload = await storage.upload(archive, chunks(), attempt="x")  # type: ignore[arg-type]
    verified = seal(sha256="0" * 64, size_bytes=5, root="ash")
    hold = FakeAttempt(archive=archive).prove_lease
    return await storage.commit(
        Commit(archive=archive, upload=upload, verified=verified, source_url="http://127.0.0.1/"),
        prove_lease=hold,
    )


def test_copies_that_only_the_buckets_know_are_found_and_indexed(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            assert await index.copies(archive) == copies
            assert await connection.kv.get(INDEX, archive.key_hash)

    asyncio.run(play())


def test_after_a_failed_read_the_engine_is_not_written_to(fleet: Fleet, nats: Nats) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await _committed(storage, archive)
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
            copies = await _committed(storage, archive)
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
            copies = await _committed(storage, archive)
            await index.record(archive, copies)
        async with fleet.connection() as connection:
            await connection.link.js.delete_stream(f"KV_{fleet.namespace}_{INDEX}")
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) == copies

    asyncio.run(play())


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
        poorer = await _committed(storage, archive)
        both = Copies(manifest=poorer.manifest, regions=storage.regions)
        async with index_of(fleet, storage) as web, fleet.connection() as connection:
            looking = asyncio.create_task(web.copies(archive))
            await storage.asked.wait()
            await _write_behind_its_back(connection, archive, both)
            storage.allowed.set()
            assert await looking == both
        async with index_of(fleet, storage) as another:
            assert await another.copies(archive) == both

    asyncio.run(play())


@pytest.mark.parametrize("removed", (True, False))
def test_a_deleted_or_unreadable_entry_is_written_again(
    fleet: Fleet,
    removed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            await connection.kv.put(INDEX, archive.key_hash, b"?")
            if removed:
                await delete(connection, INDEX, archive.key_hash)
            assert await index.copies(archive) == copies
            entry = await connection.kv.get(INDEX, archive.key_hash)
            assert entry
            record = decode_copies(entry.value)
            assert record
            assert record.regions == copies.regions

    asyncio.run(play())


def test_after_a_gap_in_the_feed_everything_is_forgotten(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        async with fleet.connection() as connection:
            index = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            await index.record(archive, copies_of(archive, "one"))
            await index.copies(archive)
            both = copies_of(archive, "one", "two")
            await _write_behind_its_back(connection, archive, both)
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
            await _write_behind_its_back(connection, archive, copies)
            assert await index.copies(archive, since=before) is None
            assert await index.copies(archive, since=datetime.now(UTC)) == copies

    asyncio.run(play())


async def _write_behind_its_back(connection: Connection, archive: Archive, copies: Copies) -> None:
    """Write an entry without publishing the change."""
    entry = encode(CopiesRecord.of(copies, datetime.now(UTC), {}))
    await connection.kv.put(INDEX, archive.key_hash, entry)


def test_without_an_engine_hits_are_found_in_the_buckets(namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), namespace=namespace)

    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) == copies

    asyncio.run(play())


def test_regions_that_are_no_longer_configured_are_left_out(fleet: Fleet) -> None:
    async def play() -> None:
        archive = an_archive()
        async with index_of(fleet, MemoryStorage(regions=("one", "two"))) as index:
            await index.record(archive, copies_of(archive, "one", "two"))
        async with index_of(fleet, MemoryStorage(regions=("two", "three"))) as index:
            found = await index.copies(archive)
            assert found
            assert found.regions == ("two",)

    asyncio.run(play())


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
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index:
            assert await index.by_sha256(copies.manifest.sha256) == ()
            await index.copies(archive)
            assert await index.by_sha256(copies.manifest.sha256) == (archive,)

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


def test_streams_of_an_older_fleet_are_read_and_then_updated(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            name = f"KV_{fleet.namespace}_{INDEX}"
            await connection.kv.put(INDEX, "key", b"value")
            config = (await connection.link.js.stream_info(name)).config
            await connection.link.js.update_stream(replace(config, allow_direct=False))
            entry = await connection.kv.get(INDEX, "key")
            assert entry
            assert (entry.value, entry.revision) == (b"value", 1)
            await connection.streams.ensure()
            assert (await connection.link.js.stream_info(name)).config.allow_direct
            assert await connection.kv.get(INDEX, "key") == entry
            await delete(connection, INDEX, "key")
            assert await connection.kv.get(INDEX, "key") is None
            assert await connection.kv.get(INDEX, "another") is None

    asyncio.run(play())


@pytest.mark.parametrize(
    "entry",
    (
        b"no JSON",
        b'{"more": ' + b"[" * 7_000 + b"]" * 7_000 + b"}",
        "key",
        "object_key",
        "sha256",
        "checked_at",
    ),
    ids=("words", "deep", "key", "object", "digest", "time"),
)
def test_an_entry_of_another_archive_is_ignored_and_replaced(
    fleet: Fleet, entry: str | bytes
) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index, fleet.connection() as connection:
            await connection.kv.put(INDEX, archive.key_hash, _forged(copies, entry))
            with capture_logs() as logs:
                assert await index.copies(archive) == copies
            assert [line["event"] for line in logs] == ["value.unreadable"]
            corrected = await connection.kv.get(INDEX, archive.key_hash)
            record = decode_copies(corrected.value) if corrected else None
            assert record
            assert record.manifest == copies.manifest

    asyncio.run(play())


def _forged(copies: Copies, entry: str | bytes) -> bytes:
    if isinstance(entry, bytes):
        return entry
    now = datetime.now(UTC)
    if entry == "checked_at":
        return encode(CopiesRecord.of(copies, NEVER, {})).replace(
            b"1970-01-01T00:00:00Z", b"1970-01-01T00:00:00"
        )
    wrong = {"object_key": "private/x", "sha256": "0\r\nX: y", "key": an_archive().key}[entry]
    manifest = replace(copies.manifest, **{entry: wrong})  # type: ignore[arg-type]
    record = CopiesRecord.of(replace(copies, manifest=manifest), now, {})
    return encode(record)


def test_forged_entries_for_a_sha256_and_a_rev_are_ignored(fleet: Fleet) -> None:
    async def play() -> None:
        sha256, archive = "c" * 64, an_archive()
        rev = rev_hash("hgmo", "projects/ash", "tip")
        async with index_of(fleet, MemoryStorage()) as index, fleet.connection() as connection:
            await connection.kv.put(
                DIGESTS, f"{sha256}.{an_archive().key_hash}", archive.key.encode()
            )
            assert await index.by_sha256(sha256) == ()
            for node, at in (("../etc", datetime.now(UTC)), ("a" * 40, datetime(2026, 1, 1))):  # noqa: DTZ001
                await connection.kv.put(REVS, rev, encode(Resolved(node=Node(node), at=at)))
                assert await index.node("hgmo", "projects/ash", "tip") is None

    asyncio.run(play())


def test_a_region_with_another_bucket_has_no_copy_until_it_is_checked(
    fleet: Fleet,
) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        east, west = storage.regions
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index:
            await index.record(archive, copies)
        storage.bucket_ids = {**storage.bucket_ids, west: "elsewhere"}
        del storage.manifests[west][archive.key]
        asked: list[Archive] = []
        async with index_of(fleet, storage) as index:
            index.stale.add(asked.append)
            with capture_logs() as logs:
                for _ in range(3):
                    assert await index.copies(archive) == replace(copies, regions=(east,))
            assert asked == [archive]
            assert [(line["event"], line["region"]) for line in logs] == [("region.moved", west)]
            seen = await index.latest(archive)
            assert seen
            assert index.is_stale(seen)
            await index.replace(archive, seen, seen.copies)
            corrected = await index.latest(archive)
            assert corrected
            assert not index.is_stale(corrected)

    asyncio.run(play())


def test_an_entry_whose_only_region_has_moved_is_ignored(fleet: Fleet) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(regions=("one",)), an_archive()
        copies = await _committed(storage, archive)
        async with index_of(fleet, storage) as index:
            await index.record(archive, copies)
        storage.bucket_ids = {storage.regions[0]: "elsewhere"}
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) == copies  # the new bucket has the archive, too
        storage.manifests[storage.regions[0]].clear()
        storage.bucket_ids = {storage.regions[0]: "nowhere"}
        async with index_of(fleet, storage) as index:
            assert await index.copies(archive) is None

    asyncio.run(play())
