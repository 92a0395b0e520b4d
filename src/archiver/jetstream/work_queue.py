"""The work queue as one worker uses it: claims become leases."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from archiver.breaker import BreakerState
from archiver.errors import EngineUnavailable, LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.dispatch import Dispatcher
from archiver.jetstream.leases import JetStreamLease
from archiver.jetstream.pauses import StateOf
from archiver.jetstream.stored_task import TaskMessage
from archiver.runtime.tasks import cancel_and_wait
from archiver.telemetry import describe, log


class JetStreamWorkQueue:
    """Implements ``ports.queue.WorkQueue``."""

    def __init__(self, *, connection: Connection, dispatcher: Dispatcher, lease: timedelta) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self.close = dispatcher.close
        self._lease = lease

    async def claim(self) -> JetStreamLease | None:
        while message := await self._dispatcher.next_message():
            if lease := await self._lease_of(message):
                return lease
        return None

    async def _lease_of(self, message: TaskMessage) -> JetStreamLease | None:
        """Begin an attempt at the task of *message*. If that fails, the lease runs out."""
        readable = message.order()
        if readable is None:
            with suppress(EngineUnavailable):  # it will be delivered again
                await message.reject()
            return None
        order, archive = readable
        lease = JetStreamLease(
            connection=self._connection,
            message=message,
            order=order,
            archive=archive,
            duration=self._lease,
        )
        try:
            return lease if await lease.begin() else None
        except (LeaseLost, EngineUnavailable, TimeoutError) as exc:
            log.warning("task.let_go", key=archive.key, cause=describe(exc))
        except Exception as exc:  # noqa: BLE001 - one task must not end the worker
            log.error("attempt.broken", key=archive.key, exc_info=exc)
        return None


@asynccontextmanager
async def open_work_queue(
    *,
    connection: Connection,
    caps: Mapping[str, int],
    lease: timedelta,
    state_of: StateOf = lambda _: BreakerState.CLOSED,
) -> AsyncIterator[JetStreamWorkQueue]:
    """Yield the queue of one worker. *caps* limit the fleet's running tasks per source.

    No tasks are requested of a source whose breaker is open, as *state_of* returns.

    Messages that arrive after the last claim go back to the queue.
    """
    dispatcher = Dispatcher(connection=connection, caps=caps, lease=lease, state_of=state_of)
    async with asyncio.TaskGroup() as group:
        dispatching = group.create_task(dispatcher.serve_claims())
        try:
            yield JetStreamWorkQueue(connection=connection, dispatcher=dispatcher, lease=lease)
        finally:
            dispatcher.close()
            await cancel_and_wait(dispatching)
            await dispatcher.leave()
