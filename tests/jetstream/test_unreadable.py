"""Unreadable values in the engine end no process, no task and no request."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from archiver.errors import LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import FAILED, FEED, FINISHED
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.records import (
    CopiesRecord,
    FinishedRecord,
    Order,
    RepairRecord,
    RevRecord,
    TaskRecord,
    WaitingRecord,
    decode_copies,
    decode_failure,
    decode_finished,
    decode_order,
    decode_repair,
    decode_rev,
    decode_task,
    decode_waiting,
    encode,
)
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.sha256_index import sha256_key
from archiver.jetstream.streams import DIGESTS, INDEX, REPAIRS, REVS, STATES, TASKS
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import Archive, Copies, EnqueueOutcome, Region, rev_hash
from archiver.ports.queue import Admit, Attempt
from archiver.tasks import ORIGINS_MAX, Failure, Phase, Priority, TaskState, Urgency
from archiver.testing import MemoryStorage
from archiver.upkeep.rebuild import Rebuilder, Tally
from archiver.upkeep.repair import Repairer
from tests.jetstream.test_leases import bench
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive, copies_of, until

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


ENDLESS = b"9" * 4300
"""The longest number that Python reads. It cannot write the next one."""

HOSTILE = (
    ENDLESS,
    b"-" + ENDLESS,
    b"9007199254740993",
    b"18446744073709551616",
    b"-1",
    b"1e300",
    b"1e400",
    b"NaN",
    b"-Infinity",
    b'"' + b"x" * 100_000 + b'"',
    b'["%s"]' % (b"y" * 100_000),
)
HOSTILE_MOMENTS = (b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"')


def a_task(archive: Archive) -> TaskRecord:
    return TaskRecord(
        key=archive.key,
        owner="x",
        sequence=1,
        delivery=0,
        vanished=0,
        state=TaskState.RETRY,
        phase=Phase.WAITING,
        bytes_done=0,
        attempt=1,
        failures=0,
        error=Failure(code="c", message="m"),
        created_at=NOW,
        started_at=NOW,
        updated_at=NOW,
        outage_since=NOW,
    )


def fields_of(record: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each field of an encoded record, and the others with a gap for its value."""
    fields = json.loads(record)
    for name in fields:
        others = json.dumps({k: v for k, v in fields.items() if k != name})[1:]
        separator = b", " if len(fields) > 1 else b""
        yield name, b'{"%s": GAP%s%s' % (name.encode(), separator, others.encode())


def buckets_of(archive: Archive) -> Iterator[tuple[str, str]]:
    """Yield each bucket and its key for *archive*."""
    yield STATES, archive.key_hash
    yield INDEX, archive.key_hash
    yield REVS, rev_hash(archive.source, archive.repo, archive.node)
    yield DIGESTS, sha256_key(archive.key_hash, archive)
    yield REPAIRS, archive.key_hash


async def spoil(connection: Connection, archive: Archive, garbage: bytes) -> None:
    """Put *garbage* at every place that may have a value of *archive*."""
    for bucket, key in buckets_of(archive):
        await connection.kv.put(bucket, key, garbage)
    await connection.streams.publish(
        connection.tasks.subject("hi", archive.source, "-", archive.key_hash), garbage, {}
    )
    for event in (FAILED, FINISHED):
        await connection.feed.publish(event, archive.key_hash, garbage)


@pytest.mark.parametrize(
    ("record", "decode"),
    (
        (a_task(an_archive()), decode_task),
        (Order(key=an_archive().key, created_at=NOW), decode_order),
        (CopiesRecord.of(copies_of(an_archive()), NOW, {Region("one"): "p"}), decode_copies),
        (RepairRecord(key=an_archive().key, missing=[Region("two")], due_at=NOW), decode_repair),
        (RevRecord(node="a" * 40, at=NOW), decode_rev),
        (FinishedRecord(source="s", duration_s=1.0), decode_finished),
        (WaitingRecord(source="s", priority=Priority.LOW, after_s=1.0), decode_waiting),
        (Failure(code="c", message="m"), decode_failure),
    ),
    ids=lambda value: type(value).__name__,
)
def test_no_field_accepts_a_value_that_overflows_or_cannot_be_encoded(
    record: object, decode: Callable[[bytes], object]
) -> None:
    assert decode(encode(record))
    for name, text in fields_of(encode(record)):
        of_time = name.endswith(("at", "since"))
        for value in HOSTILE + (HOSTILE_MOMENTS if of_time else ()):
            assert decode(text.replace(b"GAP", value)) is None, (name, value[:30])


def test_a_repair_that_would_never_be_due_is_unreadable() -> None:
    written = json.loads(encode(RepairRecord(key="k", missing=[], due_at=NOW)))
    never = written | {"due_at": str(NOW + timedelta(days=100))}

    assert decode_repair(json.dumps(never).encode()) is None


def test_numbers_that_cannot_be_encoded_end_no_worker_and_no_task(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        lacking, waiting = an_archive(), an_archive()
        repair = encode(RepairRecord(key=lacking.key, missing=[Region("two")], due_at=NOW))
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            await queue.enqueue(waiting)
            subject = connection.tasks.subject("hi", waiting.source, "-", waiting.key_hash)
            message = await connection.streams.last(connection.tasks.name, subject)
            order = decode_order(message.value) if message else None
            assert message
            assert order
            state = msgspec.structs.replace(
                a_task(waiting), sequence=message.revision, created_at=order.created_at, attempt=777
            )
            forged = encode(state).replace(b"777", ENDLESS)
            await connection.kv.put(STATES, waiting.key_hash, forged)
            forged = repair.replace(b'"tries":0', b'"tries":%s' % ENDLESS)
            await connection.kv.put(REPAIRS, lacking.key_hash, forged)
            async with fleet.worker(build), asyncio.timeout(HUNG_AFTER_S):
                await until(queue, waiting, TaskState.SUCCESS)
                while await connection.kv.get_or_marker(REPAIRS, lacking.key_hash):
                    await asyncio.sleep(0.02)

    asyncio.run(play())


def test_a_repair_that_cannot_be_enqueued_is_postponed_and_the_others_go_on(fleet: Fleet) -> None:
    first, second = an_archive(), an_archive()

    class Queue(JetStreamTaskQueue):
        async def enqueue(
            self,
            archive: Archive,
            *,
            priority: Priority = Priority.HIGH,
            client: str = "",
            admit: Admit | None = None,
            urgency: Urgency = Urgency.NOW,
            needs_host: bool = True,
        ) -> EnqueueOutcome:
            if archive == first:
                raise RuntimeError("a fault of ours")
            return await super().enqueue(
                archive,
                priority=priority,
                client=client,
                admit=admit,
                urgency=urgency,
                needs_host=needs_host,
            )

    async def play() -> None:
        storage = MemoryStorage(regions=("one", "two"))
        async with fleet.connection() as connection:
            queue, hour = Queue(connection=connection), timedelta(hours=1)
            repairs = JetStreamRepairList(connection=connection)
            for archive in (first, second):
                await repairs.add(archive, [Region("two")])
            repairer = Repairer(repairs=repairs, queue=queue, storage=storage, interval=hour)
            await repairer.sweep()
            entry = await connection.kv.get(REPAIRS, first.key_hash)
            record = decode_repair(entry.value) if entry else None
            assert record
            assert record.due_at > NOW + hour / 2
            assert await queue.task(second)

    with capture_logs() as logs:
        asyncio.run(play())
    assert [line["event"] for line in logs].count("repair.broken") == 1


def test_an_event_that_breaks_one_subscriber_reaches_the_next(fleet: Fleet) -> None:
    received: list[str] = []

    def break_down(_key_hash: str, _payload: bytes) -> None:
        raise RuntimeError("a fault of ours")

    async def play() -> None:
        async with fleet.connection() as connection:
            connection.feed.subscribe(FAILED, break_down)
            connection.feed.subscribe(FAILED, lambda key_hash, _payload: received.append(key_hash))
            async with asyncio.timeout(HUNG_AFTER_S):
                for count in (1, 2):
                    await connection.feed.publish(FAILED, "d")
                    while len(received) < count:
                        await asyncio.sleep(0.01)

    with capture_logs() as logs:
        asyncio.run(play())
    assert [line["event"] for line in logs].count("feed.broken") == 1


def noted() -> dict[str, float]:
    return {
        place: REGISTRY.get_sample_value("archiver_unreadable_values_total", {"place": place}) or 0
        for place in PLACES
    }


def test_an_archive_whose_records_are_all_garbage_is_requested_and_built(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        archives = [an_archive() for _ in GARBAGE]
        async with fleet.connection() as connection, fleet.worker(build):
            queue = JetStreamTaskQueue(connection=connection)
            index = JetStreamIndex(connection=connection, storage=MemoryStorage())
            for archive, garbage in zip(archives, GARBAGE, strict=True):
                await spoil(connection, archive, garbage)
                assert await queue.task(archive) is None
                assert await index.copies(archive) is None
                assert await index.node(archive.source, archive.repo, archive.node) is None
                assert await index.by_sha256(archive.key_hash) == ()
                assert await queue.enqueue(archive) is EnqueueOutcome.CREATED
            for archive in archives:
                await until(queue, archive, TaskState.SUCCESS)
                for bucket, key in buckets_of(archive):
                    async with asyncio.timeout(
                        HUNG_AFTER_S
                    ):  # a sweep of repairs comes every 0.1 s
                        while bucket != STATES and await connection.kv.get_or_marker(bucket, key):
                            await asyncio.sleep(0.02)

    before = noted()
    with capture_logs() as logs:
        asyncio.run(play())
    assert all(noted()[place] - before[place] >= len(GARBAGE) - 1 for place in PLACES)
    lines = [line for line in logs if line["event"] == "value.unreadable"]
    noted_values = [(line["place"], line["key"], line["revision"]) for line in lines]
    assert max(noted_values.count(value) for value in noted_values) <= 2  # once per process


def test_an_unreadable_message_is_removed_by_a_worker(fleet: Fleet) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> None:
        archive = an_archive()
        async with fleet.connection() as connection:
            subject = connection.tasks.subject("hi", archive.source, "-", archive.key_hash)
            await connection.streams.publish(subject, b"?", {})
            async with fleet.worker(build), asyncio.timeout(HUNG_AFTER_S):
                while await connection.streams.last(connection.tasks.name, subject):
                    await asyncio.sleep(0.02)

    asyncio.run(play())


@pytest.mark.thorough
def test_a_record_that_becomes_garbage_ends_the_attempt_but_not_the_task(
    fleet: Fleet,
) -> None:
    async def play() -> TaskState | None:
        async with bench(fleet) as here:
            lease = here.lease(await here.message())
            assert await lease.begin()
            await here.connection.kv.put(STATES, here.archive.key_hash, b"?")
            with pytest.raises(LeaseLost):  # its writer might have the task
                await lease.prove_lease()
            again = here.lease(await here.message())
            assert await again.begin()
            await again.succeed()
            return await here.state()

    assert asyncio.run(play()) is TaskState.SUCCESS


def test_a_rebuild_replaces_garbage_and_drops_missing_archives(fleet: Fleet) -> None:
    async def play() -> None:
        storage, there, gone = MemoryStorage(regions=("one", "two")), an_archive(), an_archive()
        copies = copies_of(there, "one", "two", sha256=there.key_hash)
        for region in storage.regions:
            storage.manifests[region][there.key] = copies.manifest
            storage.objects[region][copies.manifest.object_key] = b"1"
        async with fleet.connection() as connection:
            for archive in (there, gone):
                await spoil(connection, archive, b"?")
            store = JetStreamIndexStore(connection=connection, storage=storage)
            rebuilder = Rebuilder(store=store, storage=storage, on_progress=lambda _: None)
            tally: Tally = await rebuilder.rebuild()
            entry = await connection.kv.get(INDEX, there.key_hash)
            record = decode_copies(entry.value) if entry else None
            digest = await connection.kv.get(DIGESTS, sha256_key(there.key_hash, there))
            assert (tally.listed, tally.written, tally.kept) == (1, 1, 0)
            assert record
            assert record.manifest == copies.manifest
            assert digest
            assert digest.value == there.key.encode()
            assert await connection.kv.get_or_marker(INDEX, gone.key_hash) is None
            assert (
                await connection.kv.get_or_marker(DIGESTS, sha256_key(gone.key_hash, gone)) is None
            )

    asyncio.run(play())


def test_new_fields_are_ignored_and_missing_fields_make_a_record_unreadable() -> None:
    archive = an_archive()
    written = json.loads(encode(Order(key=archive.key, created_at=NOW)))

    assert decode_order(json.dumps({**written, "new": [1]}).encode())
    assert decode_order(json.dumps({"key": archive.key}).encode()) is None


def test_failures_of_earlier_versions_have_no_origins() -> None:
    task = a_task(an_archive())
    written = json.loads(encode(task))
    del written["error"]["origins"]

    assert decode_task(json.dumps(written).encode()) == task
    assert decode_failure(b'{"code": "c", "message": "m"}') == task.error


@pytest.mark.parametrize(
    "change",
    (
        {"path": "p" * 1000},
        {"url": "u" * 1000},
        {"url": "two\nlines"},
        {"source": "s" * 1000},
        {"repo": "r" * 1000},
        {"repo": "\x1b[2J"},
        {"number": ORIGINS_MAX + 1},
    ),
)
def test_origins_that_no_error_has_make_a_failure_unreadable(change: dict[str, Any]) -> None:
    origin = {"path": "p", "url": "u", "source": "s", "repo": "r"} | change
    origins = [origin] * origin.pop("number", ORIGINS_MAX)
    failure = {"code": "c", "message": "m", "origins": origins}
    state = json.loads(encode(a_task(an_archive()))) | {"error": failure}

    assert decode_failure(json.dumps(failure).encode()) is None
    assert decode_task(json.dumps(state).encode()) is None


def test_times_in_the_future_or_without_a_zone_are_unreadable() -> None:
    future = NOW + timedelta(days=1)
    copies, missing = copies_of(an_archive()), [Region("two")]

    assert decode_rev(encode(RevRecord(node="a" * 40, at=NOW)))
    assert decode_rev(b'{"node": "%s", "at": "%s"}' % (b"a" * 40, str(future).encode())) is None
    assert decode_rev(b'{"node": "%s", "at": "2020-01-01T00:00:00"}' % (b"a" * 40)) is None
    checked = json.loads(encode(CopiesRecord.of(copies, NOW, {}))) | {"checked_at": str(future)}
    assert decode_copies(json.dumps(checked).encode()) is None
    repair = json.loads(encode(RepairRecord(key="", missing=missing, due_at=NOW)))
    naive = repair | {"due_at": "2020-01-01T00:00:00"}
    assert decode_repair(json.dumps(naive).encode()) is None
