"""Workers and queues in one namespace of a real NATS server, and archives for their tasks."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import ArchiverError, EngineUnavailable
from archiver.git_objects import object_id
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive, Copies, Manifest, Node, Region
from archiver.ports.queue import WorkQueue
from archiver.runtime.tasks import in_background
from archiver.tasks import Task, TaskState
from archiver.testing import MemoryStorage
from archiver.tree_proof import TreeMatch, TreeProof
from archiver.upkeep.repair import Repairer
from archiver.worker.activity import Activity
from archiver.worker.worker import Build, Policy, Worker
from tests.parts.nats import Nats

LEASE = timedelta(seconds=2)

CAPS = {"hgmo": 8}

POLICY = Policy(
    concurrency=4,
    grace=timedelta(seconds=10),
    max_failures=3,
    retry_base=timedelta(seconds=0.1),
)

HUNG_AFTER_S = 120.0
"""Seconds after which a test fails. Long enough for a busy machine."""

PATIENT = timedelta(minutes=1)
"""Keeps an index from querying the buckets when NATS responds late on a busy machine."""


def an_archive(source: str = "hgmo") -> Archive:
    node = Node(secrets.token_hex(20))
    return Archive(source=source, repo="projects/ash", node=node, subdir="", suffix="zip")


def copies_of(archive: Archive, *regions: str, sha256: str = "0" * 64) -> Copies:
    manifest = Manifest(
        key=archive.key,
        node=archive.node,
        sha256=sha256,
        size_bytes=1,
        object_key=f"archives/{archive.key}/x/{archive.file_name}",
        root="ash",
        source_url="http://127.0.0.1/",
        created_at=datetime.now(UTC),
    )
    return Copies(manifest=manifest, regions=tuple(map(Region, regions or ("one",))))


def a_proven_archive(commit_bytes: int = 200) -> tuple[Archive, TreeProof]:
    """Return an archive of a git commit of this size, and its proof."""
    commit = b"tree %s\n" % secrets.token_hex(20).encode() + secrets.token_bytes(commit_bytes)
    node = Node(object_id("commit", commit, digits=40))
    proof = TreeProof(commit=commit, tree=commit[5:45].decode(), match=TreeMatch.EXACT)
    return replace(an_archive(), node=node), proof


def proven_copies(archive: Archive, proof: TreeProof, *regions: str) -> Copies:
    copies = copies_of(archive, *regions)
    return replace(copies, manifest=replace(copies.manifest, proof=proof))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Opens connections, queues and workers in one namespace."""

    servers: Servers
    namespace: str

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection whose streams exist, if the server is up."""
        async with connect(self.servers, namespace=self.namespace, name="test") as connection:
            if connection.link.is_up:
                async with asyncio.timeout(HUNG_AFTER_S):
                    await connection.prepared.wait()
            yield connection

    async def prepare(self) -> None:
        """Create the streams. Retry, since a busy disk can exceed the timeout of a process."""
        async with self.connection() as connection, asyncio.timeout(HUNG_AFTER_S):
            while True:
                with suppress(EngineUnavailable):
                    return await connection.streams.ensure()

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[JetStreamTaskQueue]:
        async with self.connection() as connection:
            yield JetStreamTaskQueue(connection=connection)

    @asynccontextmanager
    async def worker(
        self,
        build: Build,
        *,
        caps: Mapping[str, int] | None = None,
        policy: Policy = POLICY,
    ) -> AsyncIterator[None]:
        """Run a worker and its repairs while the block runs, then stop it as SIGTERM does."""
        async with self.connection() as connection:
            repairer = Repairer(
                repairs=JetStreamRepairList(connection=connection),
                queue=JetStreamTaskQueue(connection=connection),
                storage=MemoryStorage(regions=(Region("one"), Region("two"))),
                interval=timedelta(seconds=0.1),
            )
            opening = open_work_queue(connection=connection, caps=caps or CAPS, lease=LEASE)
            async with (
                in_background(repairer.keep_sweeping()),
                opening as queue,
                running(queue, build, policy),
            ):
                yield


@asynccontextmanager
async def running(
    queue: WorkQueue, build: Build, policy: Policy, activity: Activity | None = None
) -> AsyncIterator[None]:
    """Run a worker while the block runs, then stop it as SIGTERM does."""
    activity = activity or Activity()
    worker = Worker(build=build, queue=queue, policy=policy, activity=activity)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.work())
        try:
            yield
        finally:
            activity.stop()


@asynccontextmanager
async def limited(connection: Connection, stream: str, **limits: object) -> AsyncIterator[None]:
    """Set *limits* on *stream* while the block runs."""
    config = (await connection.link.js.stream_info(stream)).config
    await connection.link.js.update_stream(config.evolve(**limits))
    yield
    await connection.link.js.update_stream(config)


async def delete(connection: Connection, bucket: str, key: str) -> None:
    """Delete a key like NATS's own clients, which write a marker."""
    headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
    subject = connection.streams.key_subject(bucket, key)
    await connection.streams.publish(subject, b"", headers)


def prepared(nats: Nats, namespace: str) -> Fleet:
    """Return a fleet whose streams exist."""
    fleet = Fleet(servers=Servers(urls=[nats.url]), namespace=namespace)
    asyncio.run(fleet.prepare())
    return fleet


@pytest.fixture
def fleet(nats: Nats, namespace: str) -> Fleet:
    return prepared(nats, namespace)


async def until(queue: JetStreamTaskQueue, archive: Archive, state: TaskState) -> Task:
    """Wait until the task reaches *state*, and return it."""
    async with asyncio.timeout(HUNG_AFTER_S):
        while True:
            task = await queue.task(archive)
            if task and task.state is state:
                return task
            await asyncio.sleep(0.02)


class Refused(ArchiverError):
    code = "refused"


class Busy(ArchiverError):
    code = "busy"
    retryable = True


class Outage(Busy):
    code = "outage"
    ours = True
