"""One process's connection to NATS: kept up, with the fleet's streams in place."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from nats.aio.client import Client
from nats.js import JetStreamContext

from archiver.jetstream.feed import Feed
from archiver.jetstream.fleet_requests import Answer, FleetRequests
from archiver.jetstream.fleet_streams import FleetStreams
from archiver.jetstream.key_value import KeyValue
from archiver.jetstream.link import REQUEST_TIMEOUT, Link, Servers
from archiver.jetstream.messages import Messages
from archiver.jetstream.subscriptions import Subscriptions
from archiver.jetstream.task_stream import TaskStream
from archiver.jetstream.unreadable import UnreadableValues
from archiver.runtime.tasks import cancel_and_wait

START_TIMEOUT = timedelta(seconds=2)
"""How long a process waits for its engine before it starts without: hits need none."""

PATIENCE = timedelta(seconds=1)
"""How long a request waits for a server that restarts: better a late answer than a 503."""


class Connection:
    """Parts that share one client of NATS. Their calls end soon, or raise EngineUnavailable.

    ``namespace`` keeps fleets apart on one cluster. ``prepared`` is set once the streams exist.
    """

    def __init__(
        self, *, servers: Servers, namespace: str, name: str, answers: Mapping[str, Answer]
    ) -> None:
        self.namespace = namespace
        self.prepared = asyncio.Event()
        self._returned = asyncio.Event()
        self.link = Link(servers=servers, name=name, on_new_client=self._move_to, on_gap=self.gap)
        self.streams = FleetStreams(link=self.link, namespace=namespace, replicas=servers.replicas)
        self.feed = Feed(link=self.link, namespace=namespace)
        self.requests = FleetRequests(link=self.link, namespace=namespace, answers=answers)
        self.subscriptions = Subscriptions()
        self.unreadable = UnreadableValues()
        self.messages = Messages(link=self.link, streams=self.streams)
        self.tasks = TaskStream(link=self.link, streams=self.streams, messages=self.messages)
        self.kv = KeyValue(
            link=self.link,
            streams=self.streams,
            messages=self.messages,
            unreadable=self.unreadable,
            timeout=REQUEST_TIMEOUT,
        )

    @property
    def js(self) -> JetStreamContext:
        """JetStream, if the server can be reached now. Raises EngineUnavailable."""
        return self.link.js

    @property
    def is_up(self) -> bool:
        return self.link.is_up

    async def wait(self, within: timedelta = PATIENCE) -> None:
        """Return as soon as the server can be reached, or when the time is over."""
        await self.link.wait(within)

    async def keep(self, *, prepares: bool = True) -> None:
        """Stay connected until cancelled, and ensure the streams after each reconnection.

        The server may have lost its folder in between.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.link.keep())
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
                self.link.faults.end()
                self.prepared.set()
                return

    async def _move_to(self, client: Client) -> None:
        """Subscribe in a new client. nats-py does so itself after each reconnection."""
        await self.kv.direct_get.listen(client)
        await self.feed.move_to(client)
        await self.requests.move_to(client)
        await self.subscriptions.move_to(client)

    def gap(self) -> None:
        """Have every part of this process expect that it has missed events."""
        self._returned.set()
        self.feed.gaps.notify()


@asynccontextmanager
async def connect(
    servers: Servers,
    *,
    namespace: str,
    name: str,
    prepares: bool = True,
    answers: Mapping[str, Answer] | None = None,
) -> AsyncIterator[Connection]:
    """Yield a connection that is kept up while the block runs.

    If no server answers within 2 s, it is yielded all the same, and connects as soon as one does.
    It *prepares* the streams, unless the caller only inspects them. *answers* are this process's
    answers to requests of others.
    """
    connection = Connection(servers=servers, namespace=namespace, name=name, answers=answers or {})
    keeping = asyncio.create_task(connection.keep(prepares=prepares))
    await connection.wait(START_TIMEOUT)
    try:
        yield connection
    finally:
        await cancel_and_wait(keeping)
