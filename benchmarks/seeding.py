"""Fills the index with archives that were never built, by the engine's own code.

The buckets do not contain them, so a measured request must not reach the buckets.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.records import CopiesRecord, encode
from archiver.jetstream.streams import INDEX
from archiver.model import Archive, Manifest, Node, Region
from archiver.wiring.adapters import NAMESPACE
from benchmarks.inputs import BASENAME, ROOT
from tests.parts.process import accepts, running
from tests.system.stack import REGIONS, Stack

WRITES_AT_A_TIME = 256
CONNECT_TIMEOUT = timedelta(seconds=10)
REPO = f"seeded/{BASENAME}"


def urls(stack: Stack, numbers: Iterable[int]) -> list[str]:
    """Return the URLs of these archives at a web process of *stack*."""
    return [stack.url(REPO, _node(number)) for number in numbers]


def seed(stack: Stack, count: int) -> None:
    """Write *count* archives into the index. No process of Archiver may be running yet.

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
