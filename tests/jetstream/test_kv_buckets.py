"""The bounds of the key-value buckets, on a real server."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from archiver.errors import EngineUnavailable
from archiver.jetstream.capacity import Bounds, Capacity
from archiver.jetstream.connection import Connection
from archiver.jetstream.records import CopiesRecord, encode
from archiver.jetstream.streams import BUCKETS, ENTRY_MAX_BYTES, REVS
from archiver.manifest_check import (
    OBJECT_MAX_BYTES,
    URL_MAX_CHARS,
    find_invalid_field,
    object_prefix,
)
from archiver.model import KEY_MAX_BYTES, Conversion, Copies, Region
from tests.parts.fleet import Fleet, an_archive, copies_of


async def config_of(connection: Connection, bucket: str) -> StreamConfig:
    name = f"KV_{connection.streams.namespace}_{bucket}"
    return (await connection.link.js.stream_info(name)).config


def test_an_existing_bucket_gets_its_bounds(fleet: Fleet) -> None:
    """Buckets of an older Archiver had no bounds, and refused entries when they were full."""

    async def play() -> None:
        async with fleet.connection() as connection:
            config = await config_of(connection, REVS)
            await connection.kv.put(REVS, "key", b"value")
            old = replace(
                config,
                max_age=0,
                max_msgs=-1,
                max_bytes=-1,
                max_msg_size=-1,
                discard=DiscardPolicy.NEW,
            )
            await connection.link.js.update_stream(old)
            await connection.streams.ensure()
            assert await config_of(connection, REVS) == config
            for bucket, share in BUCKETS.items():
                there, bounds = await config_of(connection, bucket), Capacity().bounds(share)
                assert there.max_age == (bounds.max_age.total_seconds() if bounds.max_age else 0)
                assert there.max_msgs == bounds.max_entries
                assert there.max_bytes == bounds.max_bytes
                assert there.max_msg_size == ENTRY_MAX_BYTES
            entry = await connection.kv.get(REVS, "key")
            assert entry
            assert entry.value == b"value"

    asyncio.run(play())


def test_a_full_bucket_accepts_new_entries_and_drops_the_oldest(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with fleet.connection() as connection:
            bounds = Bounds(max_age=None, max_entries=3, max_bytes=100_000)
            small = connection.streams.bucket_config("small", bounds)
            await connection.link.js.add_stream(small)
            for key in ("a", "b", "c", "a", "d"):
                await connection.kv.put("small", key, b"value")
            return [key for key in "abcd" if await connection.kv.get("small", key)]

    assert asyncio.run(play()) == ["a", "c", "d"]


@pytest.mark.parametrize(("url_chars", "longest"), ((1000, 5_000), (URL_MAX_CHARS, 13_000)))
def test_the_longest_entry_of_the_index_fits_its_bucket(url_chars: int, longest: int) -> None:
    regions = tuple(Region(f"region-{number}") for number in range(9))
    archive = replace(an_archive(), repo="/".join(["r" * 212] * 3))
    made_of = Conversion(
        key=archive.key, sha256="0" * 64, size_bytes=OBJECT_MAX_BYTES, converter="c" * 100
    )
    manifest = replace(
        copies_of(archive).manifest,
        object_key=f"{object_prefix(archive)}{'a' * 16}/{archive.file_name}",
        root="r" * 225,
        source_url="https://host/".ljust(url_chars, "u"),
        conversion=made_of,
    )
    record = CopiesRecord.of(
        Copies(manifest=manifest, regions=regions),
        datetime.now(UTC),
        dict.fromkeys(regions, "0" * 16),
    )

    assert KEY_MAX_BYTES - 10 < len(archive.key) <= KEY_MAX_BYTES
    assert find_invalid_field(manifest, archive) is None
    assert len(encode(record)) < longest < ENTRY_MAX_BYTES


def test_an_entry_that_is_too_large_is_refused(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            with pytest.raises(EngineUnavailable):
                await connection.kv.put(REVS, "key", bytes(ENTRY_MAX_BYTES))
            await connection.kv.put(REVS, "key", bytes(ENTRY_MAX_BYTES // 2))

    asyncio.run(play())
