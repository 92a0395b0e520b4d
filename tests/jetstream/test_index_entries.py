"""Entries of the index that are damaged, forged or of another configuration."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from archiver.jetstream.records import NEVER, CopiesRecord, decode_copies, encode
from archiver.jetstream.streams import DIGESTS, INDEX, REVS
from archiver.model import Archive, Copies, Node, rev_hash
from archiver.ports.index import Resolved
from archiver.testing import MemoryStorage
from tests.jetstream.indexes import committed, index_of
from tests.parts.fleet import Fleet, an_archive, copies_of, delete


@pytest.mark.parametrize("removed", (True, False))
def test_a_deleted_or_unreadable_entry_is_written_again(
    fleet: Fleet,
    removed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def play() -> None:
        storage, archive = MemoryStorage(), an_archive()
        copies = await committed(storage, archive)
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
        copies = await committed(storage, archive)
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
        copies = await committed(storage, archive)
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
        copies = await committed(storage, archive)
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
