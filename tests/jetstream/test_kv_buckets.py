"""The bounds of the key-value buckets, on a real server."""

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from archiver.errors import EngineUnavailable, PartOrigin, SubmoduleRefused
from archiver.git_objects import object_id
from archiver.jetstream.capacity import ENTRY_MAX_BYTES, Bounds, Capacity
from archiver.jetstream.connection import Connection
from archiver.jetstream.copies_entries import CopiesEntries
from archiver.jetstream.index import JetStreamIndex
from archiver.jetstream.records import CopiesRecord, decode_task, encode
from archiver.jetstream.streams import BUCKETS, REVS, STATE_MAX_BYTES
from archiver.manifest_check import (
    OBJECT_MAX_BYTES,
    URL_MAX_CHARS,
    find_invalid_field,
    object_prefix,
)
from archiver.model import KEY_MAX_BYTES, Conversion, Copies, Region
from archiver.tasks import ORIGINS_MAX, Failure
from archiver.testing import MemoryStorage
from archiver.tree_proof import Part, TreeMatch
from tests.jetstream.test_unreadable import a_task
from tests.parts.fleet import (
    Fleet,
    a_proven_archive,
    an_archive,
    copies_of,
    proven_copies,
)


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
                assert there.max_msg_size == share.longest_bytes
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


def test_the_entry_of_an_archive_with_500_submodules_is_stored_and_names_them(
    fleet: Fleet,
) -> None:
    archive, proof = a_proven_archive()
    archive = replace(archive, submodules=True)
    parts = tuple(a_part(f"third_party/vendor/library-{number:03}") for number in range(500))
    copies = proven_copies(archive, replace(proof, parts=parts))

    async def play() -> Copies | None:
        async with fleet.connection() as connection:
            await JetStreamIndex(connection=connection, storage=MemoryStorage()).record(
                archive, copies
            )
            entries = CopiesEntries(connection=connection, storage=MemoryStorage(regions=["one"]))
            _, entry = await entries.read(archive)
            return entry.copies if entry else None

    assert find_invalid_field(copies.manifest, archive) is None
    stored = asyncio.run(play())
    assert stored
    assert stored.manifest == copies.manifest
    assert stored.manifest.proof
    assert [part.origin for part in stored.manifest.proof.parts] == [p.origin for p in parts]


def a_part(path: str) -> Part:
    commit = b"tree %s\n" % secrets.token_hex(20).encode() + path.encode()
    return Part(
        origin=PartOrigin(
            path=path,
            url=f"https://git.example.org/vendor/{path}.git",
            source="example",
            repo=f"vendor/{path}",
        ),
        node=object_id("commit", commit, digits=40),
        commit=commit,
        tree=commit[5:45].decode(),
        match=TreeMatch.EXACT,
    )


def test_the_state_of_a_task_in_nested_submodules_fits_its_bucket() -> None:
    names = ("/".join(["é" * 40] * 2), "s" * 255, "/".join(["r" * 232] * 3))
    origin = PartOrigin(path=names[0], url="https://" + "é" * 8000, source=names[1], repo=names[2])
    error = SubmoduleRefused.of(origin.path, origin.url).within(*[origin] * ORIGINS_MAX)
    record = encode(msgspec.structs.replace(a_task(an_archive()), error=Failure.of(error)))
    assert decode_task(record)
    assert len(record) < STATE_MAX_BYTES


def test_an_entry_that_is_too_large_is_refused(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            with pytest.raises(EngineUnavailable):
                await connection.kv.put(REVS, "key", bytes(ENTRY_MAX_BYTES))
            await connection.kv.put(REVS, "key", bytes(ENTRY_MAX_BYTES // 2))

    asyncio.run(play())
