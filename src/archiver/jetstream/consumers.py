"""Pull consumers of the work queue: one per source and priority, limited to the source's cap."""

import asyncio
import json
from datetime import timedelta
from enum import IntEnum

from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from archiver.jetstream.connection import Connection
from archiver.tasks import Priority
from archiver.telemetry import log

LINGER = timedelta(seconds=5)
"""How long a request waits at the server for an announced task.

The task may be on its way to the disk, or the source may be at its cap.
"""

LINGER_NS = LINGER // timedelta(microseconds=1) * 1000

REMOVED_AFTER = timedelta(seconds=3)
"""By then even a busy server has removed acknowledged messages from the queue."""


def share_of_cap(cap: int, priority: Priority) -> int:
    """Return how many of a source's tasks may run in *priority*: a quarter, at least one, is low.

    The shares are fixed because the server counts per consumer. Together they are the cap.
    """
    low = max(1, cap // 4)
    return low if priority is Priority.LOW else cap - low


def consumer_name(source: str, priority: Priority) -> str:
    return f"{priority}_{source}"


class Hint(IntEnum):
    """How likely it is that a consumer has a task that waits."""

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
            filter_subject=connection.tasks.subject(priority, source, "*"),
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
        """Return whether the consumer would never deliver some task (see ``stale_consumers``)."""
        first = await self._connection.tasks.withheld_message(consumer)
        if not first:
            return first is not None
        await asyncio.sleep(REMOVED_AFTER.total_seconds())
        fresh = await self._connection.tasks.ensure_consumer(
            self._config
        )  # another worker may renew it
        return await self._connection.tasks.withheld_message(fresh) in (0, first)

    async def send_request(self, reply: str, *, lingering: bool) -> None:
        """Request one message, to be sent to *reply*.

        Without a message, the server answers at once, or after ``LINGER`` to a *lingering* request.
        At the source's cap, both kinds wait.

        Raises:
            EngineUnavailable: The request was not sent.
        """
        patience = {"expires": LINGER_NS} if lingering else {"no_wait": True}
        request = {"batch": 1, **patience}
        payload = json.dumps(request).encode()
        await self._connection.tasks.send_pull_request(self.name, payload, reply)
