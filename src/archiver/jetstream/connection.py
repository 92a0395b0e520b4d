"""One process's connection to NATS: kept up, with the fleet's streams in place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

from archiver.jetstream.drain_orders import DrainOrders, Obey
from archiver.jetstream.feed import Feed
from archiver.jetstream.key_value import KeyValue
from archiver.jetstream.link import Link, Servers
from archiver.jetstream.records import UnreadableValues
from archiver.jetstream.streams import Streams
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.worker_reports import Answer, WorkerReports
from archiver.runtime.tasks import cancel_and_wait

DrainsAs: TypeAlias = tuple[str, Obey]
"""The name of a worker, and the function that drains it."""

START_TIMEOUT = timedelta(seconds=2)
"""How long a process waits for its engine before it starts without: hits need none."""


class Connection:
    """Parts that share one client of NATS. Their calls end soon, or raise EngineUnavailable.

    ``prepared`` is set once the streams exist.
    """

    def __init__(
        self,
        *,
        servers: Servers,
        namespace: str,
        name: str,
        report: Answer | None,
        drains: DrainsAs | None = None,
    ) -> None:
        self.prepared = asyncio.Event()
        self._returned = asyncio.Event()
        self.link = Link(servers=servers, name=name)
        self.link.gaps.add(self._returned.set)
        self.streams = Streams(
            link=self.link,
            namespace=namespace,
            replicas=servers.replicas,
            capacity=servers.capacity,
        )
        self.feed = Feed(link=self.link, namespace=namespace)
        self.reports = WorkerReports(link=self.link, namespace=namespace, report=report)
        worker, obey = drains or ("", None)
        self.drains = DrainOrders(link=self.link, namespace=namespace, name=worker, obey=obey)
        self.unreadable = UnreadableValues()
        self.tasks = TaskStream(link=self.link, streams=self.streams)
        self.kv = KeyValue(link=self.link, streams=self.streams, unreadable=self.unreadable)

    async def keep_connected(self, *, prepares: bool = True) -> None:
        """Stay connected until cancelled, and ensure the streams after each reconnection.

        The server may have lost its folder in between.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.link.keep_connected())
                while prepares:
                    await self._returned.wait()
                    self._returned.clear()
                    await self._prepare()
        finally:
            await self.kv.direct_get.close()

    async def _prepare(self) -> None:
        while True:
            await self.link.wait()
            try:
                await self.streams.ensure()
            except Exception as exc:  # noqa: BLE001 - whatever it is, trying again is the answer
                self.link.faults.report("engine.not_ready", exc.__cause__ or exc)
                await asyncio.sleep(1)
            else:
                self.link.faults.forget_all()
                self.prepared.set()
                return


@asynccontextmanager
async def connect(
    servers: Servers,
    *,
    namespace: str,
    name: str,
    prepares: bool = True,
    report: Answer | None = None,
    drains: DrainsAs | None = None,
) -> AsyncIterator[Connection]:
    """Yield a connection that is kept up while the block runs.

    If no server answers within 2 s, it is yielded all the same, and connects as soon as one does.
    It *prepares* the streams, unless the caller only inspects them. A worker answers requests for
    its *report*, and *drains* by its name. *namespace* keeps fleets apart on one cluster.
    """
    connection = Connection(
        servers=servers, namespace=namespace, name=name, report=report, drains=drains
    )
    keeping = asyncio.create_task(connection.keep_connected(prepares=prepares))
    await connection.link.wait(START_TIMEOUT)
    try:
        yield connection
    finally:
        await cancel_and_wait(keeping)
