"""Leases on tasks: how they begin, are renewed, and end in NATS."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec

from archiver.errors import ArchiverError, EngineUnavailable, LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import FAILED, FINISHED
from archiver.jetstream.records import DURATION_MAX_S, FinishedRecord, Order, TaskRecord, encode
from archiver.jetstream.stored_task import TaskMessage, TaskStateWriter
from archiver.model import Archive
from archiver.ports.queue import OutageHistory
from archiver.tasks import Failure, Phase, Priority, TaskState
from archiver.telemetry import describe, log

PROGRESS_INTERVAL = timedelta(seconds=0.5)
RENEWALS_PER_LEASE = 4

FINAL_WRITE_TIMEOUT = timedelta(minutes=5)
"""After a longer outage of the engine, the task is delivered again and found complete."""


class JetStreamLease:
    """Implements ``ports.queue.Lease``. ``TaskStateWriter`` fences it off from other attempts."""

    def __init__(
        self,
        *,
        connection: Connection,
        message: TaskMessage,
        order: Order,
        archive: Archive,
        duration: timedelta,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self.phase = Phase.CONNECTING
        self.announced = order.announced
        self.priority = message.priority
        self.traceparent = message.traceparent
        self.attempt, self.failures, self.vanished = 1, 0, 0
        self.outages = OutageHistory()
        self._connection = connection
        self._message = message
        self._order = order
        self._duration = duration
        self._states = TaskStateWriter(connection=connection, archive=archive, owner=self.id)
        self._bytes_done = 0
        self._record: TaskRecord
        self.is_open = False

    async def begin(self) -> bool:
        """Record the task as STARTED by this attempt; return False if the task has ended.

        Raises:
            EngineUnavailable: It is not recorded; the message will be delivered again.
            LeaseLost: A later delivery of the task is running.
        """
        last = await self._states.read_record()
        if last and self._has_ended_by(last):
            await self._message.acknowledge()
            return False
        if last and self._is_of_this_message(last):
            if self._is_outrun_by(last):
                raise LeaseLost("a later delivery of this task has been claimed")
            self._continue(last)
        else:
            last = None
        self._record = self._first_record(last.error if last else None)
        await self._write()
        return True

    def _has_ended_by(self, record: TaskRecord) -> bool:
        """A task that ends while two processes move it gets another message, with its order."""
        return record.state.terminal and record.created_at == self._order.created_at

    def _is_of_this_message(self, record: TaskRecord) -> bool:
        """The message's number alone does not identify it: a wiped queue counts from 1 again."""
        ours = self._message.sequence, self._order.created_at
        return (record.sequence, record.created_at) == ours

    def _is_outrun_by(self, last: TaskRecord) -> bool:
        """A higher number alone proves nothing: a consumer that is created again counts from 1."""
        return last.delivery > self._message.delivery and last.state is TaskState.STARTED

    def _continue(self, last: TaskRecord) -> None:
        self.attempt = last.attempt + 1
        self.failures = last.failures
        self.vanished = last.vanished + (last.state is TaskState.STARTED)
        self.outages = OutageHistory(since=last.outage_since, spoiled=last.spoiled)

    def _first_record(self, error: Failure | None) -> TaskRecord:
        now = datetime.now(UTC)
        return TaskRecord(
            key=self.archive.key,
            owner=self.id,
            sequence=self._message.sequence,
            delivery=self._message.delivery,
            vanished=self.vanished,
            state=TaskState.STARTED,
            phase=self.phase,
            bytes_done=0,
            attempt=self.attempt,
            failures=self.failures,
            error=error,
            created_at=self._order.created_at,
            started_at=now,
            updated_at=now,
            outage_since=self.outages.since,
            spoiled=self.outages.spoiled,
            client=self._order.client,
        )

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.phase = phase
        self._bytes_done = bytes_done

    async def prove_lease(self) -> None:
        with suppress(EngineUnavailable):
            await self._write()

    async def keep_renewed(self) -> None:
        interval = self._duration / RENEWALS_PER_LEASE
        renewed_at = datetime.now(UTC)
        while True:
            await asyncio.sleep(min(PROGRESS_INTERVAL, interval).total_seconds())
            with suppress(EngineUnavailable):
                if datetime.now(UTC) - renewed_at >= interval:
                    await self._message.renew()
                    await self._write()
                    renewed_at = datetime.now(UTC)
                elif self._has_progress:
                    await self._write()

    @property
    def _has_progress(self) -> bool:
        written = self._record.phase, self._record.bytes_done
        return (self.phase, self._bytes_done) != written

    async def succeed(self) -> None:
        """The duration is published if a client may have waited for the build."""
        built = self.phase is Phase.COMMITTING
        await self._end(TaskState.SUCCESS)
        if built and self._message.priority is not Priority.LOW:
            took = datetime.now(UTC) - (self._record.started_at or datetime.now(UTC))
            duration_s = min(max(took.total_seconds(), 0), DURATION_MAX_S)  # clocks are adjusted
            finished = encode(FinishedRecord(source=self.archive.source, duration_s=duration_s))
            await self._connection.feed.publish(FINISHED, self.archive.key_hash, finished)

    async def fail(self, error: ArchiverError) -> None:
        self.failures += 1
        await self._end(TaskState.FAILURE, error)

    async def _end(self, state: TaskState, error: ArchiverError | None = None) -> None:
        self.report(Phase.DONE, self._bytes_done)
        self._change(state, error)
        async with asyncio.timeout(FINAL_WRITE_TIMEOUT.total_seconds()):
            await self._until_done(self._write)
            # Before the slow acknowledgement: clients may repeat their requests at once.
            if error and (error.origins or not error.retryable):
                failure = encode(self._record.error)
                await self._connection.feed.publish(FAILED, self.archive.key_hash, failure)
            await self._until_done(self._message.acknowledge)

    async def _until_done(self, write: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await write()
            except EngineUnavailable as exc:
                log.warning(
                    "task.write_failed",
                    key=self.archive.key,
                    attempt=self.attempt,
                    code=exc.code,
                    cause=describe(exc),
                )
                await asyncio.sleep(1)

    async def retry(self, error: ArchiverError, *, after: timedelta) -> None:
        self.failures += 1
        self.outages = OutageHistory(spoiled=self.outages.spoiled)
        await self._give_back(error, after=after)

    async def postpone(
        self, error: ArchiverError, *, outages: OutageHistory, after: timedelta
    ) -> None:
        self.outages = outages
        await self._give_back(error, after=after)

    async def hand_back(self) -> None:
        """The record gets no error: this attempt did not fail, even if an earlier one did."""
        await self._give_back(None, after=timedelta(0))

    async def _give_back(self, error: ArchiverError | None, *, after: timedelta) -> None:
        self.report(Phase.WAITING)
        self._change(TaskState.RETRY, error)
        with suppress(EngineUnavailable):  # the lease runs out instead, with the same effect
            await self._write()
        await self._message.give_back(after=after)

    def _change(self, state: TaskState, error: ArchiverError | None) -> None:
        self._record = msgspec.structs.replace(
            self._record,
            state=state,
            error=Failure.of(error) if error else None,
            failures=self.failures,
            outage_since=self.outages.since,
            spoiled=self.outages.spoiled,
        )

    async def _write(self) -> None:
        """Write the record with the progress of the attempt. Raises as ``TaskStateWriter``."""
        self._record = msgspec.structs.replace(
            self._record,
            phase=self.phase,
            bytes_done=self._bytes_done,
            updated_at=datetime.now(UTC),
        )
        await self._states.write(self._record)
        self.is_open = self._record.state is TaskState.STARTED
