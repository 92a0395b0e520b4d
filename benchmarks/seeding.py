"""Fills the index or the buckets with archives that were never built, by Archiver's own code."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.records import CopiesRecord, encode
from archiver.jetstream.sha256_index import sha256_key
from archiver.jetstream.streams import DIGESTS, INDEX
from archiver.model import Archive, Manifest, Node, Region
from archiver.storage.bucket import Bucket
from archiver.storage.regional_storage import open_storage
from archiver.wiring.adapters import NAMESPACE
from benchmarks.inputs import BASENAME, ROOT
from tests.parts.process import accepts, running
from tests.system.stack import REGIONS, Stack

WRITES_AT_A_TIME = 256
UPLOADS_AT_A_TIME = 16
CONNECT_TIMEOUT = timedelta(seconds=10)
CREATED_AT = datetime.now(UTC) - timedelta(days=1)
REPO = f"seeded/{BASENAME}"


def urls(stack: Stack, numbers: Iterable[int]) -> list[str]:
    """Return the URLs of these archives at a web process of *stack*."""
    return [stack.url(REPO, _node(number)) for number in numbers]


def seed(stack: Stack, count: int, places: Mapping[Region, str] = MappingProxyType({})) -> None:
    """Write *count* archives into the index. No process of Archiver may be running yet.

    If the buckets contain them, *places* is what ``seed_buckets`` returned. Otherwise, a measured
    request must not reach the buckets.

    A NATS that does not flush every write to the disk replaces the usual one for that time.
    """
    print(f"  writing {count:,} archives into the index")
    stack.nats.down()
    config = _careless(stack.folder / "nats" / "nats.conf")
    command: list[str | Path] = [stack.nats.start[0], "--config", config]
    port = stack.nats.port
    with running(command, log=stack.nats.log, ready=lambda: accepts(port), stop_timeout_s=60):
        asyncio.run(_seed(port, count, places))
    stack.nats.up()


def _careless(config: Path) -> Path:
    copy = config.with_name("careless.conf")
    copy.write_text(config.read_text().replace("sync_interval: always", 'sync_interval: "60s"'))
    return copy


async def _seed(port: int, count: int, places: Mapping[Region, str]) -> None:
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
                group.create_task(_write(connection, numbers, places))


async def _write(
    connection: Connection, numbers: Iterator[int], places: Mapping[Region, str]
) -> None:
    for number in numbers:
        archive, manifest = _archive(number), _manifest(number)
        record = CopiesRecord(
            manifest=manifest,
            regions=tuple(Region(name) for name in REGIONS),
            checked_at=datetime.now(UTC),  # a check of an older entry would reach the buckets
            places=dict(places),
        )
        await connection.kv.put(INDEX, archive.key_hash, encode(record))
        sha256 = sha256_key(manifest.sha256, archive)
        await connection.kv.put(DIGESTS, sha256, archive.key.encode())


def seed_buckets(buckets: Sequence[Bucket], count: int) -> Mapping[Region, str]:
    """Write *count* small archives, with their manifests, into each of *buckets*.

    Returns the ids of the buckets, for ``seed``.
    """
    print(f"  writing {count:,} archives into {len(buckets)} buckets")
    return asyncio.run(_seed_buckets(buckets, count))


async def _seed_buckets(buckets: Sequence[Bucket], count: int) -> Mapping[Region, str]:
    async with open_storage(buckets) as storage:
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as group:
            for _ in range(UPLOADS_AT_A_TIME):
                group.create_task(_store(buckets, numbers))
        return storage.bucket_ids


async def _store(buckets: Sequence[Bucket], numbers: Iterator[int]) -> None:
    for number in numbers:
        archive, manifest = _archive(number), _manifest(number)
        for bucket in buckets:
            await bucket.put_object(manifest.object_key, _chunks(_data(number)))
            await bucket.create_manifest(archive, manifest, known_absent=True)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _node(number: int) -> Node:
    return Node(hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest())


def _data(number: int) -> bytes:
    return f"archive {number}".encode()


def _archive(number: int) -> Archive:
    return Archive(source="hgmo", repo=REPO, node=_node(number), subdir="", suffix="tar.gz")


def _manifest(number: int) -> Manifest:
    archive, data = _archive(number), _data(number)
    return Manifest(
        key=archive.key,
        node=archive.node,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        object_key=f"archives/{archive.key}/{number:032x}/{archive.file_name}",
        root=ROOT,
        source_url=f"http://127.0.0.1/{REPO}/archive/{archive.node}.tar.gz/",
        created_at=CREATED_AT,
    )
