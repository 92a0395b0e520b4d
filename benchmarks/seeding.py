"""Fills the index or the buckets with archives that were never built, by Archiver's own code."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.records import CopiesRecord, encode
from archiver.jetstream.streams import INDEX
from archiver.model import Archive, Manifest, Node, Region
from archiver.storage.bucket import Bucket
from archiver.storage.regional_storage import open_storage
from archiver.wiring.adapters import NAMESPACE
from benchmarks.inputs import BASENAME, ROOT
from tests.parts.process import accepts, running
from tests.system.stack import REGIONS, Stack

WRITES_AT_A_TIME = 256
UPLOADS_AT_A_TIME = 16
DATA = b"bytes"
CONNECT_TIMEOUT = timedelta(seconds=10)
REPO = f"seeded/{BASENAME}"


def urls(stack: Stack, numbers: Iterable[int]) -> list[str]:
    """Return the URLs of these archives at a web process of *stack*."""
    return [stack.url(REPO, _node(number)) for number in numbers]


def seed(stack: Stack, count: int) -> None:
    """Write *count* archives into the index. No process of Archiver may be running yet.

    The buckets do not contain them, so a measured request must not reach the buckets.

    A NATS that does not flush every write to the disk replaces the usual one for that time.
    """
    print(f"  writing {count:,} archives into the index")
    stack.nats.down()
    config = _careless(stack.folder / "nats" / "nats.conf")
    command: list[str | Path] = [stack.nats.start[0], "--config", config]
    port = stack.nats.port
    with running(command, log=stack.nats.log, ready=lambda: accepts(port), stop_timeout_s=60):
        asyncio.run(_seed(port, count))
    stack.nats.up()


def _careless(config: Path) -> Path:
    copy = config.with_name("careless.conf")
    copy.write_text(config.read_text().replace("sync_interval: always", 'sync_interval: "60s"'))
    return copy


async def _seed(port: int, count: int) -> None:
    servers = Servers(
        urls=(f"nats://127.0.0.1:{port}",),
        user=None,
        password=None,
        credentials_file=None,
        replicas=1,
    )
    async with connect(servers, namespace=NAMESPACE, name="seeding") as connection:
        await connection.link.wait(CONNECT_TIMEOUT)
        await connection.streams.ensure()
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITES_AT_A_TIME):
                group.create_task(_write(connection, numbers))


async def _write(connection: Connection, numbers: Iterator[int]) -> None:
    for number in numbers:
        seeded = _seeded(number)
        await connection.kv.put(INDEX, seeded.archive.key_hash, encode(seeded.record))


def seed_buckets(buckets: Sequence[Bucket], count: int) -> None:
    """Write *count* small archives, with their manifests, into each of *buckets*."""
    print(f"  writing {count:,} archives into {len(buckets)} buckets")
    asyncio.run(_seed_buckets(buckets, count))


async def _seed_buckets(buckets: Sequence[Bucket], count: int) -> None:
    async with open_storage(buckets), asyncio.TaskGroup() as group:
        numbers = iter(range(count))
        for _ in range(UPLOADS_AT_A_TIME):
            group.create_task(_store(buckets, numbers))


async def _store(buckets: Sequence[Bucket], numbers: Iterator[int]) -> None:
    for number in numbers:
        seeded = _seeded(number)
        manifest = replace(
            seeded.record.manifest,
            size_bytes=len(DATA),
            sha256=hashlib.sha256(DATA).hexdigest(),
            created_at=seeded.record.manifest.created_at - timedelta(days=1),
        )
        for bucket in buckets:
            await bucket.put_object(manifest.object_key, _chunks())
            await bucket.create_manifest(seeded.archive, manifest, known_absent=True)


async def _chunks() -> AsyncIterator[bytes]:
    yield DATA


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seeded:
    archive: Archive
    record: CopiesRecord


def _node(number: int) -> Node:
    return Node(hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest())


def _seeded(number: int) -> _Seeded:
    archive = Archive(source="hgmo", repo=REPO, node=_node(number), subdir="", suffix="tar.gz")
    manifest = Manifest(
        key=archive.key,
        node=archive.node,
        sha256=hashlib.sha256(archive.node.encode()).hexdigest(),
        size_bytes=number,
        object_key=f"archives/{archive.key}/{number:032x}/{archive.file_name}",
        root=ROOT,
        source_url=f"http://127.0.0.1/{REPO}/archive/{archive.node}.tar.gz/",
        created_at=datetime.now(UTC),
    )
    record = CopiesRecord(
        manifest=manifest,
        regions=tuple(Region(name) for name in REGIONS),
        checked_at=manifest.created_at,  # a check of an older entry would reach the buckets
    )
    return _Seeded(archive=archive, record=record)
