"""The queue's back: one consumer per source and priority, whose limit is the source's cap."""

import asyncio
import json
from datetime import timedelta
from enum import IntEnum

from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from archiver.jetstream.connection import Connection
from archiver.tasks import Priority
from archiver.telemetry import log

LINGER = timedelta(seconds=5)
"""How long a question waits at the server for an announced task.

The task may be on its way to the disk, or waiting for a seat under the source's cap.
"""

LINGER_NS = LINGER // timedelta(microseconds=1) * 1000

REMOVED_AFTER = timedelta(seconds=3)
"""By then a server, however busy, has removed from the queue what was acknowledged."""


def seats(concurrency: int, priority: Priority) -> int:
    """Return how many of a source's seats a priority has: a quarter, at least one, is for low.

    The shares are fixed, because the server counts per consumer: together they are the cap.
    """
    low = max(1, concurrency // 4)
    return low if priority is Priority.LOW else concurrency - low


def lane_name(source: str, priority: Priority) -> str:
    """Return the name of the consumer of a source and priority."""
    return f"{priority}_{source}"


class Hint(IntEnum):
    """Whether a lane is believed to hold a task that waits."""

    NONE = 0
    MAYBE = 1
    NEWS = 2


class Lane:
    """The tasks of one source and priority; never more of them are handed out than it has seats.

    ``made`` says that its consumer is there; ``question`` names what it was asked, and has not
    answered yet.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        source: str,
        priority: Priority,
        concurrency: int,
        lease: timedelta,
    ) -> None:
        self.name = lane_name(source, priority)
        self.source = source
        self.priority = priority
        self.made = False
        self.question: str | None = None
        self.hint = Hint.NONE
        self._connection = connection
        self._config = ConsumerConfig(
            durable_name=self.name,
            filter_subject=connection.subject("tasks", priority, source, "*"),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=lease.total_seconds(),
            max_deliver=-1,  # a finite one leaves the last message behind, and its key blocked
            max_ack_pending=seats(concurrency, priority),
        )

    def wake(self, hint: Hint) -> None:
        """Believe *hint*, unless more is believed already."""
        self.hint = max(self.hint, hint)

    async def make(self) -> None:
        """Have the consumer there, as it is configured here. Raises EngineUnavailable."""
        consumer = await self._connection.ensure_consumer(self._config)
        if await self._is_left_over(consumer):
            log.warning("lane.renewed", lane=self.name)
            await self._connection.delete_consumer(self.name)
            await self._connection.ensure_consumer(self._config)
        self.made = True

    async def _is_left_over(self, consumer: ConsumerInfo) -> bool:
        """Tell whether this lane's consumer would keep tasks from every worker for good."""
        first = await self._connection.left_over(consumer)
        if not first:
            return first is not None
        await asyncio.sleep(REMOVED_AFTER.total_seconds())
        fresh = await self._connection.ensure_consumer(self._config)  # others may have renewed it
        return await self._connection.left_over(fresh) in (0, first)

    async def ask(self, reply: str, *, lingering: bool) -> None:
        """Ask for one message, to be sent to *reply*.

        If the lane is empty, the server answers at once, or after ``LINGER`` if the question is
        *lingering*. At the source's cap, both kinds wait for a seat.

        Raises:
            EngineUnavailable: The question was not sent.
        """
        patience = {"expires": LINGER_NS} if lingering else {"no_wait": True}
        question = {"batch": 1, **patience}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._connection.tasks_stream}.{self.name}"
        await self._connection.send(subject, json.dumps(question).encode(), reply)
