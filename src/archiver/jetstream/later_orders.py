"""Orders that this worker cannot read because a later release has written them.

In a lane, they would occupy the places under the source's cap. A worker that receives one moves it
to a lane of its own, and workers that can read it move it back.
"""

import asyncio
from collections.abc import Collection
from datetime import timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.records import decode_order
from archiver.jetstream.task_stream import StoredMessage, TaskStream
from archiver.jetstream.task_subject import BACKGROUND
from archiver.tasks import Priority
from archiver.telemetry import log

LATER = "later"
"""In the place of a priority: no worker's consumer receives the message."""

CHECK_EVERY = timedelta(minutes=1)
"""A worker of the later release looks for them when it starts. Afterwards, others may add some."""


async def set_aside(tasks: TaskStream, message: StoredMessage) -> None:
    """Move *message* out of its lane. Raises EngineUnavailable."""
    _, source, client, key_hash = tasks.parse(message.subject)
    await tasks.move(message, tasks.subject(LATER, source, client, key_hash))


class LaterOrders:
    """Moves the orders of *sources* that were set aside, and that this worker can read, back."""

    def __init__(self, *, tasks: TaskStream, sources: Collection[str]) -> None:
        self._tasks = tasks
        self._sources = sources

    async def keep_returning(self) -> None:
        """Check now and every minute, until cancelled."""
        while True:
            for source in self._sources:
                try:
                    await self._return_readable(source)
                except EngineUnavailable as exc:
                    log.debug("later_orders.not_checked", code=exc.code)
                except Exception:  # noqa: BLE001 - the next check may succeed
                    log.exception("later_orders.broken")
            await asyncio.sleep(CHECK_EVERY.total_seconds())

    async def _return_readable(self, source: str) -> None:
        pattern, after = self._tasks.subject(LATER, source, "*", "*"), 0
        while message := await self._tasks.next(pattern, after=after):
            after = message.revision
            _, _, client, key_hash = self._tasks.parse(message.subject)
            order = decode_order(message.value)
            if order and order.archive(source=source, key_hash=key_hash):
                lane = Priority.LOW if client == BACKGROUND else Priority.MIDDLE
                await self._tasks.move(message, self._tasks.subject(lane, source, client, key_hash))
