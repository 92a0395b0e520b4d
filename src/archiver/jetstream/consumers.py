"""Pull consumers of the work queue: one per source and priority, limited to the source's cap."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from enum import IntEnum

from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from archiver.jetstream.connection import Connection
from archiver.tasks import Priority
from archiver.telemetry import describe, log

LINGER = timedelta(seconds=5)
"""How long a request waits at the server for an announced task, which may be on its way to the
disk, or at its source's cap."""

LINGER_NS = LINGER // timedelta(microseconds=1) * 1000

REMOVED_AFTER = timedelta(seconds=3)
"""By then even a busy server has removed acknowledged messages from the queue."""

CREATIONS_MAX = 8
"""Consumers that are created at a time: a worker with 100 sources has 300."""

RETRY_AFTER = timedelta(seconds=0.5)

WARN_EVERY = timedelta(minutes=1)
"""How often a worker warns of consumers that it cannot create. There may be hundreds."""


def share_of_cap(cap: int, priority: Priority) -> int:
    """Return how many of a source's tasks may run in *priority*: half in the middle one.

    A quarter, at least one, is reserved for each of the others. The shares are fixed because the
    server counts per consumer. Together they are the cap.
    """
    reserved = max(1, cap // 4)
    return cap - 2 * reserved if priority is Priority.MIDDLE else reserved


def consumer_name(source: str, priority: Priority) -> str:
    return f"{priority}_{source}"


class Hint(IntEnum):
    """How likely a consumer has a task."""

    NONE = 0
    MAYBE = 1
    ANNOUNCED = 2


class SourceConsumer:
    """The consumer for the tasks of one source and priority.

    ``exists`` is true once the consumer was seen on the server. ``request`` is the token of the
    pull request that has no answer yet.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        source: str,
        priority: Priority,
        cap: int,
        lease: timedelta,
    ) -> None:
        self.name = consumer_name(source, priority)
        self.source = source
        self.priority = priority
        self.exists = False
        self.request: str | None = None
        self.hint = Hint.NONE
        self._connection = connection
        self._config = ConsumerConfig(
            durable_name=self.name,
            filter_subject=connection.tasks.lane(priority, source),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=lease.total_seconds(),
            max_deliver=-1,  # a limit would leave the last message in the queue, blocking its key
            max_ack_pending=share_of_cap(cap, priority),
        )

    def raise_hint(self, hint: Hint) -> None:
        self.hint = max(self.hint, hint)

    async def ensure(self) -> None:
        """Create the consumer if it is missing or stale. Raises EngineUnavailable."""
        consumer = await self._connection.tasks.ensure_consumer(self._config)
        if await self._is_stale(consumer):
            log.warning("lane.renewed", lane=self.name)
            await self._connection.tasks.delete_consumer(self.name)
            await self._connection.tasks.ensure_consumer(self._config)
        self.exists = True

    async def _is_stale(self, consumer: ConsumerInfo) -> bool:
        tasks = self._connection.tasks
        first = await tasks.withheld_message(consumer)
        if not first:
            return first is not None
        await asyncio.sleep(REMOVED_AFTER.total_seconds())
        fresh = await tasks.ensure_consumer(self._config)  # another worker may renew it
        return await tasks.withheld_message(fresh) in (0, first)

    async def send_request(self, reply: str, *, lingering: bool) -> None:
        """Request one message, to be sent to *reply*. Raises EngineUnavailable.

        Without a message, the server answers at once, or after ``LINGER`` to a *lingering* request.
        At the source's cap, both kinds wait.
        """
        patience = {"expires": LINGER_NS} if lingering else {"no_wait": True}
        request = json.dumps({"batch": 1, **patience}).encode()
        await self._connection.tasks.send_pull_request(self.name, request, reply)


class ConsumerSet:
    """A consumer per source and priority. ``on_ready`` is called for each that was ensured."""

    def __init__(
        self,
        *,
        connection: Connection,
        caps: Mapping[str, int],
        lease: timedelta,
        on_ready: Callable[[SourceConsumer], None],
    ) -> None:
        consumers = [
            SourceConsumer(
                connection=connection, source=source, priority=priority, cap=cap, lease=lease
            )
            for priority in Priority
            for source, cap in caps.items()
        ]
        self._connection = connection
        self._on_ready = on_ready
        self._consumers = {(str(c.priority), c.source): c for c in consumers}
        self._turns = {p: [c for c in consumers if c.priority is p] for p in Priority}
        self._missing = asyncio.Event()
        self._missing.set()
        self._warn_after = 0.0

    def __iter__(self) -> Iterator[SourceConsumer]:
        return iter(self._consumers.values())

    def get(self, priority: str, source: str) -> SourceConsumer | None:
        return self._consumers.get((str(priority), source))

    def of_subject(self, subject: str) -> SourceConsumer | None:
        """Return the consumer for a task with this subject, if this worker has it."""
        try:
            priority, source, *_ = self._connection.tasks.parse(subject)
        except ValueError:
            return None
        return self.get(priority, source)

    def choose(
        self, first: Priority, admits: Callable[[SourceConsumer], bool] = lambda _: True
    ) -> SourceConsumer | None:
        """Return the next consumer that may have a task and has no open request.

        It is one that *admits* accepts. Those of the priority *first* come first, and then the
        others in order.
        """
        order = sorted(Priority, key=lambda priority: priority is not first)
        for turns in (self._turns[priority] for priority in order):
            for consumer in turns:
                if not (consumer.hint and consumer.exists and consumer.request is None):
                    continue
                if admits(consumer):
                    turns.remove(consumer)
                    turns.append(consumer)
                    return consumer
        return None

    def recreate(self, *consumers: SourceConsumer) -> None:
        """Ensure *consumers* again, which may be missing."""
        for consumer in consumers:
            consumer.exists = False
        self._missing.set()

    async def keep_complete(self) -> None:
        """Create the missing consumers whenever there are some, until cancelled."""
        while True:
            await self._missing.wait()
            self._missing.clear()
            missing = iter([consumer for consumer in self if not consumer.exists])
            async with asyncio.TaskGroup() as group:
                for _ in range(CREATIONS_MAX):
                    group.create_task(self._create(missing))

    async def _create(self, consumers: Iterator[SourceConsumer]) -> None:
        for consumer in consumers:
            try:
                await consumer.ensure()
            except Exception as exc:  # noqa: BLE001 - the other consumers must still be created
                self._log_broken(consumer, exc)
                await asyncio.sleep(RETRY_AFTER.total_seconds())
                self._missing.set()
            else:
                self._on_ready(consumer)

    def _log_broken(self, consumer: SourceConsumer, exc: Exception) -> None:
        write = log.debug  # the whole engine may be away
        if time.monotonic() >= self._warn_after and self._connection.link.is_up:
            self._warn_after = time.monotonic() + WARN_EVERY.total_seconds()
            write = log.warning
        write("lane.broken", lane=consumer.name, cause=describe(exc))
