"""Values in the engine that cannot be read end no process, no task and no request."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from archiver.engine.buckets import DIGESTS, INDEX, REPAIRS, REVS, STATES, TASKS
from archiver.engine.connection import Connection
from archiver.engine.digests import digest_key
from archiver.engine.feed import FAILED, FEED, FINISHED
from archiver.engine.index import JetStreamIndex
from archiver.engine.jetstream import JetStream
from archiver.engine.rebuilding import Rebuilder, Tally
from archiver.engine.records import (
    CopiesRecord,
    Order,
    RepairRecord,
    RevRecord,
    decode_copies,
    decode_order,
    decode_repair,
    decode_rev,
    encode,
)
from archiver.errors import LeaseLost
from archiver.model import Archive, Copies, Joined, Region, rev_digest
from archiver.ports import Attempt
from archiver.tasks import TaskState
from archiver.testing import MemoryStorage
from tests.engine.conftest import Fleet, an_archive, copies_of, until
from tests.engine.test_claims import bench

NOW = datetime.now(UTC)
GARBAGE = (
    b"not JSON",
    b'"\xff"',
    b'{"key": "\xff"}',
    b"[]",
    b"{}",
    b'{"key": 1, "node": 2, "manifest": 3, "code": 4, "source": 5}',
    b'{"of another version": ' + b"[" * 7_000 + b"]" * 7_000 + b"}",
    encode(Order(key="v1/not/a/key", created_at=NOW)),
    encode(Order(key=an_archive().key, created_at=NOW)),
    encode(RepairRecord(key=an_archive().key, missing=[Region("two")], due_at=NOW)),
    encode(CopiesRecord.of(copies_of(an_archive()), NOW, {})),
)
PLACES = (STATES, INDEX, REVS, DIGESTS, REPAIRS, TASKS, FEED)


def buckets_of(archive: Archive) -> Iterator[tuple[str, str]]:
    """Yield each bucket and the key in it that has to do with *archive*."""
    yield STATES, archive.digest
    yield INDEX, archive.digest
    yield REVS, rev_digest(archive.source, archive.repo, archive.node)
    yield DIGESTS, digest_key(archive.digest, archive)
    yield REPAIRS, archive.digest


async def spoil(connection: Connection, archive: Archive, garbage: bytes) -> None:
    """Put *garbage* wherever something may stand of *archive*."""
    for bucket, key in buckets_of(archive):
        await connection.put(bucket, key, garbage)
    await connection.publish(
        connection.subject("tasks", "hi", archive.source, archive.digest), garbage, {}
    )
    for event in (FAILED, FINISHED):
        await connection.tell(event, archive.digest, garbage)


def noted() -> dict[str, float]:
    return {
        place: REGISTRY.get_sample_value("archiver_unreadable_values_total", {"place": place}) or 0
        for place in PLACES
    }


def test_an_archive_whose_every_record_is_garbage_is_asked_for_and_built(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        archives = [an_archive() for _ in GARBAGE]
        async with fleet.connection() as connection, fleet.worker(build):
            engine = JetStream(connection=connection)
            index = JetStreamIndex(connection=connection, storage=MemoryStorage())
            for archive, garbage in zip(archives, GARBAGE, strict=True):
                await spoil(connection, archive, garbage)
                assert await engine.task(archive) is None
                assert await index.copies(archive) is None
                assert await index.node(archive.source, archive.repo, archive.node) is None
                assert await index.by_digest(archive.digest) == ()
                assert await engine.enqueue(archive) is Joined.MISS
            for archive in archives:
                await until(engine, archive, TaskState.SUCCESS)
                for bucket, key in buckets_of(archive):
                    async with asyncio.timeout(10):  # a sweep of repairs comes every 0.1 s
                        while bucket != STATES and await connection.trace(bucket, key):
                            await asyncio.sleep(0.02)

    before = noted()
    with capture_logs() as logs:
        asyncio.run(play())
    assert all(noted()[place] - before[place] >= len(GARBAGE) - 1 for place in PLACES)
    lines = [line for line in logs if line["event"] == "value.unreadable"]
    told = [(line["place"], line["key"], line["revision"]) for line in lines]
    assert max(told.count(value) for value in told) <= 2  # by each of both processes


def test_a_message_that_no_web_process_meets_is_removed_by_a_worker(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        archive = an_archive()
        async with fleet.connection() as connection:
            subject = connection.subject("tasks", "hi", archive.source, archive.digest)
            await connection.publish(subject, b"?", {})
            async with fleet.worker(build), asyncio.timeout(10):
                while await connection.last_message(connection.tasks_stream, subject):
                    await asyncio.sleep(0.02)

    asyncio.run(play())


def test_a_record_that_became_garbage_under_an_attempt_ends_it_and_not_the_task(
    fleet: Fleet,
) -> None:
    async def play() -> TaskState | None:
        async with bench(fleet) as here:
            claim = here.claim(await here.message())
            assert await claim.take()
            await here.connection.put(STATES, here.archive.digest, b"?")
            with pytest.raises(LeaseLost):  # the writer might have the task
                await claim.hold()
            again = here.claim(await here.message())
            assert await again.take()
            await again.succeed()
            return await here.state()

    assert asyncio.run(play()) is TaskState.SUCCESS


def test_a_rebuild_replaces_garbage_and_drops_what_no_region_has(fleet: Fleet) -> None:
    async def play() -> None:
        storage, there, gone = MemoryStorage(regions=("one", "two")), an_archive(), an_archive()
        copies = copies_of(there, "one", "two", sha256=there.digest)
        for region in storage.regions:
            storage.manifests[region][there.key] = copies.manifest
            storage.objects[region][copies.manifest.object_key] = b"1"
        async with fleet.connection() as connection:
            for archive in (there, gone):
                await spoil(connection, archive, b"?")
            rebuilder = Rebuilder(connection=connection, storage=storage, told=lambda _: None)
            tally: Tally = await rebuilder.rebuild()
            entry = await connection.get(INDEX, there.digest)
            record = decode_copies(entry.value) if entry else None
            digest = await connection.get(DIGESTS, digest_key(there.digest, there))
            assert (tally.listed, tally.written, tally.kept) == (1, 1, 0)
            assert record
            assert record.manifest == copies.manifest
            assert digest
            assert digest.value == there.key.encode()
            assert await connection.trace(INDEX, gone.digest) is None
            assert await connection.trace(DIGESTS, digest_key(gone.digest, gone)) is None

    asyncio.run(play())


def test_what_a_newer_version_adds_is_passed_over_and_what_it_leaves_out_is_missed() -> None:
    archive = an_archive()
    written = json.loads(encode(Order(key=archive.key, created_at=NOW)))

    assert decode_order(json.dumps({**written, "new": [1]}).encode())
    assert decode_order(json.dumps({"key": archive.key}).encode()) is None


def test_a_value_of_the_future_or_of_no_time_zone_is_not_believed() -> None:
    future = NOW + timedelta(days=1)
    copies, missing = copies_of(an_archive()), [Region("two")]

    assert decode_rev(encode(RevRecord(node="a" * 40, at=NOW)))
    assert decode_rev(b'{"node": "%s", "at": "%s"}' % (b"a" * 40, str(future).encode())) is None
    assert decode_rev(b'{"node": "%s", "at": "2020-01-01T00:00:00"}' % (b"a" * 40)) is None
    checked = json.loads(encode(CopiesRecord.of(copies, NOW, {}))) | {"checked_at": str(future)}
    assert decode_copies(json.dumps(checked).encode()) is None
    naive = RepairRecord(key="", missing=missing, due_at=NOW.replace(tzinfo=None))
    assert decode_repair(encode(naive)) is None
