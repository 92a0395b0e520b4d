"""The facts of NATS that an operator should know. Nothing is created or changed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import nats.js.errors

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.connection_faults import CHECKS, reason_of
from archiver.jetstream.link import Servers
from archiver.jetstream.replication import Replication, StreamStatus
from archiver.jetstream.translation import FAILURES
from archiver.ports.diagnosis import EngineFault, ServerFacts, StorageFacts, StreamFacts
from archiver.ports.queue import WorkerReport

PATIENCE = timedelta(seconds=3)
"""On top of START_TIMEOUT. A server that does not answer is known by then."""


class Inspection:
    """Implements ``ports.diagnosis.InspectedEngine``."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._link = connection.link
        self._replication = Replication(
            connection=connection, configured_replicas=connection.streams.replicas
        )

    def server(self) -> ServerFacts | EngineFault:
        if not self._link.is_up:
            return _fault(self._link.faults.reason or "timed_out")
        return ServerFacts(version=self._link.server_version, cluster_size=self._link.cluster_size)

    async def storage(self) -> StorageFacts | EngineFault:
        try:
            account = await self._link.js.account_info()
        except (*FAILURES, nats.js.errors.Error) as exc:
            return _fault(reason_of(exc))
        wanted = {
            str(config.name): config.max_bytes or -1 for config in self._connection.streams.wanted()
        }
        streams = await self._replication.status()
        missing = wanted.keys() - {each.stream.name for each in streams}
        return StorageFacts(
            used_bytes=account.storage,
            max_bytes=account.limits.max_storage or -1,
            streams=[_facts(each, wanted[each.stream.name]) for each in streams],
            missing=sorted(missing),
            missing_bytes=sum(wanted[name] for name in missing),
        )

    async def workers(self) -> Sequence[WorkerReport]:
        return await self._connection.reports.request()


@asynccontextmanager
async def open_inspection(servers: Servers, *, namespace: str) -> AsyncIterator[Inspection]:
    """Yield an inspection, whether or not a server answers."""
    async with connect(
        servers, namespace=namespace, name="archiver-doctor", prepares=False
    ) as connection:
        await connection.link.wait(PATIENCE)
        yield Inspection(connection=connection)


def _fault(reason: str) -> EngineFault:
    return EngineFault(reason=reason, check=CHECKS[reason])


def _facts(status: StreamStatus, wanted_max_bytes: int) -> StreamFacts:
    return StreamFacts(
        name=status.stream.name,
        replicas=status.stream.replicas,
        current=status.stream.current,
        leaderless=status.leaderless,
        fullness=status.fullness,
        max_bytes=status.max_bytes,
        wanted_max_bytes=wanted_max_bytes,
    )
