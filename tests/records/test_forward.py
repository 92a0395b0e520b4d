"""Records of the next release end no process, and are neither removed nor overwritten."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import EngineUnavailable, StorageUnavailable, UnreadableManifest
from archiver.jetstream.connection import Connection
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.index_store import JetStreamIndexStore
from archiver.jetstream.last_uses import JetStreamLastUses
from archiver.jetstream.later_orders import LATER
from archiver.jetstream.newer_records import is_of_later_release
from archiver.jetstream.records import decode_copies, decode_order, decode_task, decode_waiting
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.seats import JetStreamSeats
from archiver.jetstream.stream_setup import covers, subjects_of_both
from archiver.jetstream.streams import DIGESTS, INDEX, REPAIRS, REVS, STATES, TASKS, USES
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import Archive, Completeness, Copies, EnqueueOutcome, Region, rev_hash
from archiver.ports.queue import Attempt
from archiver.record_versions import VERSIONS, is_newer, key_hash_of
from archiver.storage.object_keys import manifest_key, tombstone_key
from archiver.storage.regional_storage import open_storage
from archiver.tasks import Phase, TaskState
from archiver.testing import MemoryStorage
from archiver.tree_proof import TreeMatch
from tests.parts.fleet import HUNG_AFTER_S, PATIENT, Fleet, an_archive, until
from tests.parts.s3 import Home
from tests.records.samples import ENUMERATIONS, SAMPLES, full_copies

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
NEW_MEMBERS = st.dictionaries(st.text(max_size=8).map(lambda name: f"new {name}"), JSON, max_size=3)
FREE_NAMES = {"holders", "places", "checks"}
"""Members whose names are data, so that an additional one is no new field."""


def extended(document: Any, new: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return *document* with *new* members in each of its objects."""
    if isinstance(document, list):
        return [extended(each, new) for each in document]
    if not isinstance(document, dict):
        return document
    inner = {
        name: value if name in FREE_NAMES else extended(value, new)
        for name, value in document.items()
    }
    return {**inner, **new}


def replaced(document: Any, word: str) -> Iterator[Any]:  # noqa: ANN401
    """Yield *document* with *word* in the place of each value of an enumeration."""
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, str) and value in ENUMERATIONS and name != "client":
                yield {**document, name: word}
            for each in replaced(value, word):
                yield {**document, name: each}
    elif isinstance(document, list):
        for at, value in enumerate(document):
            for each in replaced(value, word):
                yield [*document[:at], each, *document[at + 1 :]]


@pytest.mark.parametrize("record", SAMPLES)
@given(new=NEW_MEMBERS)
def test_additional_members_change_nothing(record: str, new: dict[str, Any]) -> None:
    document, decode = SAMPLES[record]
    before = decode(json.dumps(document).encode())

    assert before
    assert decode(json.dumps(extended(document, new)).encode()) == before


@pytest.mark.parametrize("record", SAMPLES)
@given(word=st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True))
def test_new_values_of_enumerations_can_be_read(record: str, word: str) -> None:
    document, decode = SAMPLES[record]

    for changed in replaced(document, word):
        assert decode(json.dumps(changed).encode()), changed


@pytest.mark.parametrize("record", SAMPLES)
@given(ahead=st.integers(1, 1000), new=NEW_MEMBERS)
def test_a_later_version_is_not_read_and_is_no_damage(
    record: str, ahead: int, new: dict[str, Any]
) -> None:
    version = VERSIONS[record] + ahead
    value = json.dumps({**SAMPLES[record].document, **new, "version": version}).encode()

    assert is_newer(record, value)
    assert record == "failure" or SAMPLES[record].decode(value) is None


@pytest.mark.parametrize("record", SAMPLES)
def test_the_present_version_may_be_named(record: str) -> None:
    document, decode = SAMPLES[record]

    assert decode(json.dumps({**document, "version": VERSIONS[record]}).encode())


@given(value=st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
def test_damage_is_of_no_later_release(value: bytes) -> None:
    key_hash = an_archive().key_hash

    for place in (TASKS, STATES, INDEX, REVS, REPAIRS, DIGESTS, USES):
        assert not is_of_later_release(place, key_hash, value)


def test_unknown_words_become_the_values_that_promise_least() -> None:
    assert Phase("polling") is Phase.CONNECTING
    assert Completeness("audited") is Completeness.TRUSTED
    assert TreeMatch("normalized") is TreeMatch.OTHER
    for words in (Phase, Completeness, TreeMatch):
        for damaged in ("two words", "", "x" * 41, "a\n"):
            with pytest.raises(ValueError, match="not a valid"):
                words(damaged)


def test_a_state_that_is_unknown_counts_as_none() -> None:
    """It may be final or not. The queue and the buckets say more."""
    document = {**SAMPLES["task"].document, "state": "PARTED"}

    assert decode_task(json.dumps(document).encode()) is None


def test_an_announcement_of_an_unknown_lane_can_be_read() -> None:
    waiting = decode_waiting(b'{"source": "hgmo", "priority": "spare", "after_s": 1}')

    assert waiting
    assert waiting.priority == "spare"


def newer(record: str, archive: Archive) -> bytes:
    document = {**SAMPLES[record].document, "key": archive.key, "version": VERSIONS[record] + 1}
    return json.dumps(document).encode()


def with_a_new_flag(archive: Archive) -> tuple[str, str]:
    """Return the key of an archive that this release cannot parse, and its hash."""
    key = archive.key.replace(archive.node, f"{archive.node}~history")
    return key, key_hash_of(key)


async def build(archive: Archive, _attempt: Attempt) -> Copies:
    copies = full_copies()
    manifest = replace(copies.manifest, key=archive.key, node=archive.node)
    return replace(copies, manifest=manifest)


async def stored(connection: Connection, key_hash: str) -> bool:
    subject = connection.tasks.subject("*", "*", "*", key_hash)
    return await connection.tasks.last(subject) is not None


async def order(connection: Connection, key_hash: str, value: bytes, lane: str = "hi") -> None:
    subject = connection.tasks.subject(lane, "hgmo", "-", key_hash)
    await connection.streams.publish(subject, value, {})


def test_an_order_of_the_next_release_waits_for_a_worker_that_can_read_it(fleet: Fleet) -> None:
    later, ours, flagged = an_archive(), an_archive(), an_archive()
    key, key_hash = with_a_new_flag(flagged)

    async def play() -> None:
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            await order(connection, later.key_hash, newer("order", later))
            named = json.dumps({"key": key, "created_at": str(datetime.now(UTC))})
            await order(connection, key_hash, named.encode())
            assert await queue.enqueue(later) is EnqueueOutcome.JOINED
            task = await queue.task(later)
            assert task
            assert task.state is TaskState.PENDING
            async with fleet.worker(build):
                await queue.enqueue(ours)
                await until(queue, ours, TaskState.SUCCESS)
            assert await stored(connection, later.key_hash)
            assert await stored(connection, key_hash)
            assert await connection.kv.get(STATES, later.key_hash) is None

    asyncio.run(play())


def test_an_order_that_was_set_aside_returns_once_a_worker_can_read_it(fleet: Fleet) -> None:
    archives = [an_archive(), an_archive()]

    async def play() -> None:
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            for archive, client in zip(archives, ("-", "c" * 16), strict=True):
                value = {**SAMPLES["order"].document, "key": archive.key}
                subject = connection.tasks.subject(LATER, "hgmo", client, archive.key_hash)
                await connection.streams.publish(subject, json.dumps(value).encode(), {})
            async with fleet.worker(build):
                for archive in archives:
                    await until(queue, archive, TaskState.SUCCESS)

    asyncio.run(play())


def test_a_task_in_a_lane_of_the_next_release_is_joined_and_left_there(fleet: Fleet) -> None:
    archive, ours = an_archive(), an_archive()
    value = {**SAMPLES["order"].document, "key": archive.key}

    async def play() -> None:
        async with fleet.connection() as connection, fleet.worker(build):
            queue = JetStreamTaskQueue(connection=connection)
            await order(connection, archive.key_hash, json.dumps(value).encode(), "spare")
            assert await queue.enqueue(archive, client="someone") is EnqueueOutcome.JOINED
            assert await queue.backlog(archive) is None
            tasks = JetStreamTaskList(connection=connection)
            assert [each.key_hash async for each in tasks.queued()] == [archive.key_hash]
            assert [each.task.archive async for each in tasks.oldest()] == [archive]
            await queue.enqueue(ours)
            await until(queue, ours, TaskState.SUCCESS)
            assert await stored(connection, archive.key_hash)

    asyncio.run(play())


def test_entries_of_the_next_release_stay_and_count_as_missing(fleet: Fleet) -> None:
    archive, storage = an_archive(), MemoryStorage()
    rev = rev_hash(archive.source, archive.repo, "default")
    sha256 = f"{'a' * 64}.{archive.key_hash}"
    values = {
        (INDEX, archive.key_hash): newer("copies", archive),
        (REPAIRS, archive.key_hash): newer("repair", archive),
        (REVS, rev): newer("rev", archive),
        (DIGESTS, sha256): b'{"version": 2}',
        (USES, archive.key_hash): b'{"day": "2026-01-01", "version": 2}',
    }

    async def play() -> None:
        async with fleet.connection() as connection:
            for (bucket, key), value in values.items():
                await connection.kv.put(bucket, key, value)
            index = JetStreamIndex(connection=connection, storage=storage, hedge_after=PATIENT)
            assert await index.copies(archive) is None
            await index.record(archive, full_copies())
            assert await index.node(archive.source, archive.repo, "default") is None
            assert await index.by_sha256("a" * 64) == ()
            repairs = JetStreamRepairList(connection=connection)
            await repairs.add(archive, [Region("one")])
            assert [repair async for repair in repairs.due()] == []
            uses = JetStreamLastUses(connection=connection)
            assert [each async for each in uses.scan()] == [
                (archive.key_hash, datetime.now(UTC).date())
            ]
            store = JetStreamIndexStore(connection=connection, storage=storage)
            assert [entry.key async for entry in store.scan() if entry.archive is None] == []
            for (bucket, key), value in values.items():
                entry = await connection.kv.get(bucket, key)
                assert entry, (bucket, key)
                assert entry.value == value, (bucket, key)

    asyncio.run(play())


def test_seats_and_turns_of_the_next_release_are_not_taken_over(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            document = {"holders": [], "version": 2}
            await connection.kv.put(STATES, "seats.hgmo", json.dumps(document).encode())
            seats = JetStreamSeats(connection=connection, numbers={"hgmo": 1})
            with pytest.raises(EngineUnavailable):
                async with seats.take("hgmo"):
                    raise AssertionError("two releases hold the same seat")
            await connection.kv.put(STATES, "sweep", b'{"version": 2}')
            schedule = JetStreamSchedule(connection=connection)
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            assert await schedule.begin("sweep", until=tomorrow) is None
            for key in ("seats.hgmo", "sweep"):
                entry = await connection.kv.get(STATES, key)
                assert entry
                assert b'"version": 2' in entry.value

    asyncio.run(play())


def test_a_task_ends_although_the_next_release_has_written_its_state(fleet: Fleet) -> None:
    """As after a step back: the state counts its attempts, and no more is lost."""
    archive = an_archive()

    async def play() -> None:
        async with fleet.connection() as connection:
            queue = JetStreamTaskQueue(connection=connection)
            await queue.enqueue(archive)
            await connection.kv.put(STATES, archive.key_hash, newer("task", archive))
            task = await queue.task(archive)
            assert task
            assert task.state is TaskState.PENDING
            async with fleet.worker(build), asyncio.timeout(HUNG_AFTER_S):
                await until(queue, archive, TaskState.SUCCESS)

    asyncio.run(play())


def test_an_older_process_keeps_the_subjects_that_a_later_one_has_added(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            name, js = connection.tasks.name, connection.link.js
            config = (await js.stream_info(name)).config
            for wider in (
                [*(config.subjects or ()), f"{fleet.namespace}.batches.*"],
                [f"{fleet.namespace}.tasks.>"],
            ):
                await js.update_stream(config.evolve(subjects=wider))
                await connection.streams.ensure()
                assert (await js.stream_info(name)).config.subjects == wider

    asyncio.run(play())


@pytest.mark.parametrize(
    ("pattern", "subject", "is_covered"),
    (
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.*", "a.>", False),
        ("a.*", "a.b.c", False),
        (">", "a.*", True),
        ("a.b", "a.*", False),
    ),
)
def test_a_pattern_covers_another(pattern: str, subject: str, is_covered: bool) -> None:  # noqa: FBT001
    assert covers(pattern, subject) is is_covered


def test_subjects_of_an_earlier_release_are_replaced() -> None:
    assert subjects_of_both(["tasks.hi.*", "more.*"], ["tasks.*.*"]) == ["tasks.*.*", "more.*"]


def test_manifests_of_the_next_release_are_copied_as_they_are(home: Home) -> None:
    archive = full_copies().manifest
    known = SAMPLES["copies"].document["manifest"] | {"proof": None}
    later = {**known, "object_key": f"archives/{archive.key}/x-1/{_file_name()}", "new": [1]}

    async def play() -> bytes | None:
        first, second = (home.bucket(region) for region in home.regions)
        async with open_storage([first, second]) as storage:
            wanted = an_archive_of(later)
            body = json.dumps({**later, "sha256": SHA256_OF_X}).encode()
            await first.put_small(later["object_key"], b"x", "an archive")
            await first.put_small(manifest_key(wanted), body, "a manifest")
            found = await storage.find(wanted)
            assert found.copies
            await storage.copy(wanted, found.copies, home.regions[1])
            assert await second.read_manifest_body(wanted) == body
            both = await storage.find(wanted)
            assert both.copies
            assert both.copies.regions == home.regions
            return body

    asyncio.run(play())


SHA256_OF_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def _file_name() -> str:
    return an_archive_of(SAMPLES["copies"].document["manifest"]).file_name


def an_archive_of(manifest: dict[str, Any]) -> Archive:
    return replace(an_archive(), node=manifest["node"])


def test_a_manifest_of_a_later_version_is_neither_served_nor_replaced(home: Home) -> None:
    archive = an_archive()
    body = json.dumps({"version": 2, "key": archive.key}).encode()

    async def play() -> None:
        buckets = [home.bucket(region) for region in home.regions]
        async with open_storage(buckets) as storage:
            for bucket in buckets:
                await bucket.put_small(manifest_key(archive), body, "a manifest")
                await bucket.put_small(tombstone_key(archive), b'{"version": 2}', "a tombstone")
            with pytest.raises(UnreadableManifest):
                await storage.find(archive)
            with pytest.raises(StorageUnavailable):
                await storage.read_tombstone(archive)
            assert await buckets[0].read_manifest_body(archive) == body

    asyncio.run(play())


def test_orders_and_copies_without_a_version_are_of_the_first() -> None:
    assert decode_order(json.dumps(SAMPLES["order"].document).encode())
    assert decode_copies(json.dumps(SAMPLES["copies"].document).encode())
    assert "version" not in SAMPLES["order"].document
