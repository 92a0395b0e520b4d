"""Measures the queue: how many tasks wait in each lane, and for how long."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from nats.js.api import ConsumerInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import consumer_name
from archiver.jetstream.records import decode_order
from archiver.jetstream.task_subject import DEFERRED, PARKED
from archiver.tasks import Priority
from archiver.telemetry import METRICS, log

INTERVAL = timedelta(seconds=30)


class QueueGauges:
    """Sets ``archiver_queue_tasks`` and ``archiver_queue_oldest_task_age_seconds``.

    Web processes do so as well as workers: the queue grows while no worker runs.
    """

    def __init__(self, *, connection: Connection, sources: Collection[str]) -> None:
        self._tasks = connection.tasks
        self._sources = sources

    async def keep_measuring(self) -> None:
        """Measure every 30 s until cancelled. While the engine is away, the values stay."""
        while True:
            try:
                await self.measure()
            except EngineUnavailable as exc:
                log.debug("queue.not_measured", code=exc.code)
            except Exception:  # noqa: BLE001 - the next measurement may succeed
                log.exception("queue.measuring_broken")
            await asyncio.sleep(INTERVAL.total_seconds())

    async def measure(self) -> None:
        """Raises EngineUnavailable."""
        for source in self._sources:
            for priority in Priority:
                await self._measure_lane(source, priority)
            for place in (PARKED, DEFERRED):
                waiting = await self._tasks.count_in(place, source)
                await self._set(source, place, waiting=waiting, begun=0, after=0)

    async def _measure_lane(self, source: str, priority: Priority) -> None:
        lane = await self._tasks.consumer(consumer_name(source, priority))
        if lane is None:  # no worker has ever run
            waiting = await self._tasks.count_in(priority, source)
            await self._set(source, priority, waiting=waiting, begun=0, after=0)
            return
        await self._set(
            source,
            priority,
            waiting=lane.num_pending or 0,
            begun=lane.num_ack_pending or 0,
            after=_last_delivered(lane),
        )

    async def _set(self, source: str, lane: str, *, waiting: int, begun: int, after: int) -> None:
        oldest = await self._oldest(source, lane, after) if waiting else None
        age = datetime.now(UTC) - oldest if oldest else timedelta(0)
        METRICS.queue_tasks.labels(source=source, lane=lane, state="waiting").set(waiting)
        METRICS.queue_tasks.labels(source=source, lane=lane, state="begun").set(begun)
        METRICS.queue_oldest_age.labels(source=source, lane=lane).set(max(0, age.total_seconds()))

    async def _oldest(self, source: str, lane: str, after: int) -> datetime | None:
        """Return when the first task behind the revision *after* was created."""
        message = await self._tasks.next(self._tasks.subject(lane, source, "*", "*"), after=after)
        order = decode_order(message.value) if message else None
        return order.created_at if order else None


def _last_delivered(lane: ConsumerInfo) -> int:
    return lane.delivered.stream_seq if lane.delivered else 0
