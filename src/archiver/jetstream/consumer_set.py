"""The consumers of one worker: created, created again, and asked in turn."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import SourceConsumer
from archiver.tasks import Priority
from archiver.telemetry import describe, log

CREATIONS_MAX = 8
"""Consumers that are created at a time: a worker with 100 sources has 200."""

RETRY_AFTER = timedelta(seconds=0.5)

WARN_EVERY = timedelta(minutes=1)
"""How often a worker warns of consumers that it cannot create. There may be hundreds."""


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
        priority, source, _key_hash = subject.split(".")[-3:]
        return self.get(priority, source)

    def choose(self, *, low_first: bool) -> SourceConsumer | None:
        """Return the next consumer that may have a task and has no open request."""
        order = reversed(Priority) if low_first else iter(Priority)
        for turns in (self._turns[priority] for priority in order):
            for consumer in turns:
                if consumer.hint and consumer.exists and consumer.request is None:
                    turns.remove(consumer)
                    turns.append(consumer)
                    return consumer
        return None

    def recreate(self, *consumers: SourceConsumer) -> None:
        """Ensure *consumers* again, which may be missing."""
        for consumer in consumers:
            consumer.exists = False
        self._missing.set()

    async def keep(self) -> None:
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
        """Warn of a consumer that cannot be created, unless the whole engine is away."""
        due = time.monotonic() >= self._warn_after and self._connection.link.is_up
        if due:
            self._warn_after = time.monotonic() + WARN_EVERY.total_seconds()
            log.warning("lane.broken", lane=consumer.name, cause=describe(exc))
        else:
            log.debug("lane.broken", lane=consumer.name, cause=describe(exc))
