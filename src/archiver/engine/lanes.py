"""The queue's back: one consumer per source and priority, whose limit is the source's cap."""

import asyncio
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from archiver.concurrency import heeded
from archiver.engine.connection import Connection
from archiver.engine.leftovers import left_over
from archiver.errors import EngineUnavailable
from archiver.tasks import Priority
from archiver.telemetry import describe, log

FETCH_TIMEOUT = timedelta(seconds=1)
"""An idle lane holds one of its worker's slots for this long, then lets the other lanes have it."""

PAUSE = timedelta(seconds=0.5)

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


class Lane:
    """Hands out the tasks of one source and priority, never more at a time than it has seats."""

    def __init__(
        self,
        *,
        connection: Connection,
        source: str,
        priority: Priority,
        concurrency: int,
        lease: timedelta,
    ) -> None:
        self._connection = connection
        self._name = lane_name(source, priority)
        self._config = ConsumerConfig(
            durable_name=self._name,
            filter_subject=connection.subject("tasks", priority, source, "*"),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=lease.total_seconds(),
            max_deliver=-1,  # a finite one leaves the last message behind, and its key blocked
            max_ack_pending=seats(concurrency, priority),
        )
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def next(self) -> Msg | None:
        """Return the next message, or None if there is none within a second."""
        try:
            with heeded():
                if self._subscription is None:
                    self._subscription = await self._subscribe()
                return (await self._subscription.fetch(1, FETCH_TIMEOUT.total_seconds()))[0]
        except nats.errors.TimeoutError:
            return None
        except (EngineUnavailable, nats.errors.Error, OSError) as exc:
            log.debug("lane.broken", lane=self._name, cause=describe(exc))
            await self.close()
            await asyncio.sleep(PAUSE.total_seconds())
            return None

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        connection = self._connection
        try:
            consumer = await connection.js.add_consumer(connection.tasks_stream, self._config)
        except nats.js.errors.NotFoundError:
            await connection.ensure_streams()
            consumer = await connection.js.add_consumer(connection.tasks_stream, self._config)
        if await self._is_left_over(consumer):
            log.warning("lane.renewed", lane=self._name)
            await connection.js.delete_consumer(connection.tasks_stream, self._name)
            await connection.js.add_consumer(connection.tasks_stream, self._config)
        return await connection.js.pull_subscribe_bind(self._name, connection.tasks_stream)

    async def _is_left_over(self, consumer: ConsumerInfo) -> bool:
        """Tell whether this lane's consumer would keep tasks from every worker for good."""
        js = self._connection.js
        first = await left_over(js, consumer)
        if not first:
            return first is not None
        await asyncio.sleep(REMOVED_AFTER.total_seconds())
        return first == await left_over(js, consumer)

    async def close(self) -> None:
        """Ask for nothing more."""
        subscription, self._subscription = self._subscription, None
        if subscription:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as exc:
                log.debug("lane.not_closed", lane=self._name, cause=describe(exc))
