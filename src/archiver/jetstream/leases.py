"""Leases on tasks: how they are won, written, renewed and ended in NATS."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import nats.errors
from nats.aio.msg import Msg

from archiver.errors import ArchiverError, EngineUnavailable, LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.feed import FAILED, FINISHED, PROGRESS, WAITING
from archiver.jetstream.kv_buckets import STATES
from archiver.jetstream.records import (
    DURATION_MAX_S,
    FinishedRecord,
    Order,
    TaskRecord,
    WaitingRecord,
    encode,
)
from archiver.jetstream.task_states import read_state
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive
from archiver.ports.queue import OutageHistory
from archiver.tasks import Failure, Phase, Priority, TaskState
from archiver.telemetry import describe, log

PROGRESS_INTERVAL = timedelta(seconds=0.5)
HEARTBEATS_PER_LEASE = 4

WRITES_MAX = 3
"""A lost reply costs one. The others allow for refusals without a foreign record."""

FINAL_WRITE_TIMEOUT = timedelta(minutes=5)
"""After a longer outage of the engine, the task is handed out again and found complete."""


class JetStreamLease:
    """Implements ``ports.queue.Lease``.

    The fence: every write of the task's state names the revision that it replaces. If the write
    fails because a foreign record is there, the lease is lost. Any other failed write proves
    nothing and never ends the attempt.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        message: Msg,
        order: Order,
        archive: Archive,
        duration: timedelta,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self.phase = Phase.CONNECTING
        self._connection = connection
        self._message = message
        self._duration = duration
        self._revision = 0
        self._bytes_done = 0
        self._order = order
        self._record: TaskRecord
        self._written: TaskState | None = None

    @property
    def attempt(self) -> int:
        return self._record.attempt

    @property
    def failures(self) -> int:
        return self._record.failures

    @property
    def vanished(self) -> int:
        return self._record.vanished

    @property
    def outages(self) -> OutageHistory:
        return OutageHistory(since=self._record.outage_since, spoiled=self._record.spoiled)

    @property
    def is_open(self) -> bool:
        return self._written is TaskState.STARTED

    async def begin(self) -> bool:
        """Record the task as STARTED by this attempt; return False if the task has ended.

        Raises:
            EngineUnavailable: It is not recorded; the message will be delivered again.
            LeaseLost: A later delivery of the task is running.
        """
        entry = await self._connection.kv.get_or_marker(STATES, self.archive.key_hash)
        last = self._earlier_record(entry)
        if last and last.state.terminal:
            await self._acknowledge()
            return False
        if last and self._is_outrun_by(last):
            raise LeaseLost("a later delivery of this task has been claimed")
        self._revision = entry.revision if entry else 0
        self._record = self._first_record(last)
        await self._write()
        return True

    def _earlier_record(self, entry: Entry | None) -> TaskRecord | None:
        """Return the record of an earlier attempt at this very message, if there is one.

        The message's number alone does not identify it: a wiped queue counts from 1 again.
        """
        last = read_state(self._connection, self.archive, entry)
        same = last and (last.sequence, last.created_at) == (
            self._message.metadata.sequence.stream,
            self._order.created_at,
        )
        return last if same else None

    def _is_outrun_by(self, last: TaskRecord) -> bool:
        """Return whether a later delivery runs the task.

        An attempt that gave the task back may have a higher number, because a consumer that is
        created again counts deliveries from 1.
        """
        later = last.delivery > self._message.metadata.num_delivered
        return later and last.state is TaskState.STARTED

    def _first_record(self, last: TaskRecord | None) -> TaskRecord:
        now = datetime.now(UTC)
        metadata = self._message.metadata
        vanished = last.vanished + (last.state is TaskState.STARTED) if last else 0
        return TaskRecord(
            key=self.archive.key,
            owner=self.id,
            sequence=metadata.sequence.stream,
            delivery=metadata.num_delivered,
            vanished=vanished,
            state=TaskState.STARTED,
            phase=self.phase,
            bytes_done=0,
            attempt=(last.attempt if last else 0) + 1,
            failures=last.failures if last else 0,
            error=last.error if last else None,
            created_at=self._order.created_at,
            started_at=now,
            updated_at=now,
            outage_since=last.outage_since if last else None,
            spoiled=last.spoiled if last else 0,
        )

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.phase = phase
        self._bytes_done = bytes_done

    async def hold(self) -> None:
        with suppress(EngineUnavailable):
            await self._write()

    async def keep_renewed(self) -> None:
        interval = self._duration / HEARTBEATS_PER_LEASE
        renewed_at = datetime.now(UTC)
        while True:
            await asyncio.sleep(min(PROGRESS_INTERVAL, interval).total_seconds())
            with suppress(EngineUnavailable):
                if datetime.now(UTC) - renewed_at >= interval:
                    await self._renew()
                    await self._write()
                    renewed_at = datetime.now(UTC)
                elif (self.phase, self._bytes_done) != (
                    self._record.phase,
                    self._record.bytes_done,
                ):
                    await self._write()

    async def _renew(self) -> None:
        with suppress(nats.errors.Error, OSError):
            await self._message.in_progress()

    async def succeed(self) -> None:
        """End the task in SUCCESS.

        Its duration is published only if the archive was built and a client may have waited for it.
        """
        built = self.phase is Phase.COMMITTING
        self.report(Phase.DONE, self._bytes_done)
        await self._end(TaskState.SUCCESS, error=None, failures=self.failures)
        if built and self._priority is Priority.HIGH:
            await self._connection.feed.publish(
                FINISHED, self.archive.key_hash, encode(self._finished())
            )

    @property
    def _priority(self) -> Priority:
        return Priority(self._message.subject.split(".")[-3])

    def _finished(self) -> FinishedRecord:
        took = datetime.now(UTC) - (self._record.started_at or datetime.now(UTC))
        duration_s = min(max(took.total_seconds(), 0), DURATION_MAX_S)  # the clock may be adjusted
        return FinishedRecord(source=self.archive.source, duration_s=duration_s)

    async def fail(self, error: ArchiverError) -> None:
        failure = Failure(code=error.code, message=error.message)
        self.report(Phase.DONE, self._bytes_done)
        await self._end(
            TaskState.FAILURE,
            error=failure,
            failures=self.failures + 1,
            publish=not error.retryable,
        )

    async def _end(
        self, state: TaskState, *, error: Failure | None, failures: int, publish: bool = False
    ) -> None:
        """Write the final state, publish a failure, and remove the task from the queue.

        In this order, because a client that reads of the failure may repeat its request at once,
        and the acknowledgement waits for a disk.
        """
        self._record = msgspec.structs.replace(
            self._record, state=state, error=error, failures=failures
        )
        async with asyncio.timeout(FINAL_WRITE_TIMEOUT.total_seconds()):
            await self._until_done(self._write)
            if publish:
                await self._connection.feed.publish(FAILED, self.archive.key_hash, encode(error))
            await self._until_done(self._acknowledge)

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
        outages = OutageHistory(spoiled=self.outages.spoiled)
        await self._give_back(error, failures=self.failures + 1, outages=outages, after=after)

    async def wait(self, error: ArchiverError, *, outages: OutageHistory, after: timedelta) -> None:
        await self._give_back(error, failures=self.failures, outages=outages, after=after)

    async def hand_back(self) -> None:
        """Offer the task to other workers at once.

        The record has no error, since this attempt did not fail, even if an earlier one did.
        """
        await self._give_back(
            None, failures=self.failures, outages=self.outages, after=timedelta(0)
        )

    async def _give_back(
        self,
        error: ArchiverError | None,
        *,
        failures: int,
        outages: OutageHistory,
        after: timedelta,
    ) -> None:
        self.report(Phase.WAITING)
        self._record = msgspec.structs.replace(
            self._record,
            state=TaskState.RETRY,
            error=Failure(code=error.code, message=error.message) if error else None,
            failures=failures,
            outage_since=outages.since,
            spoiled=outages.spoiled,
        )
        with suppress(EngineUnavailable):  # the lease runs out instead, with the same effect
            await self._write()
        with suppress(nats.errors.Error, OSError):
            await self._message.nak(delay=after.total_seconds() or None)
        waiting = WaitingRecord(
            source=self.archive.source, priority=self._priority, after_s=after.total_seconds()
        )
        await self._connection.feed.publish(WAITING, self.archive.key_hash, encode(waiting))

    async def _acknowledge(self) -> None:
        try:
            await self._message.ack_sync(timeout=2)
        except nats.errors.MsgAlreadyAckdError:
            return
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            if await self._is_gone():
                return
            raise EngineUnavailable("the engine did not confirm an acknowledgement") from exc

    async def _is_gone(self) -> bool:
        """Return whether the message is no longer in the queue, as after a wipe."""
        stream, subject = self._connection.tasks.name, self._message.subject
        last = await self._connection.messages.last(stream, subject)
        return last is None or last.revision != self._message.metadata.sequence.stream

    async def _write(self) -> None:
        """Write the record over the revision that this attempt wrote or read last.

        Raises:
            LeaseLost: A foreign record is there.
            EngineUnavailable: The record is not known to be written.
        """
        self._record = msgspec.structs.replace(
            self._record,
            phase=self.phase,
            bytes_done=self._bytes_done,
            updated_at=datetime.now(UTC),
        )
        for _ in range(WRITES_MAX):
            try:
                self._revision = await self._connection.kv.update(
                    STATES, self.archive.key_hash, encode(self._record), revision=self._revision
                )
            except WrongRevision:
                await self._refresh_revision()
            else:
                break
        else:
            raise EngineUnavailable("the engine does not accept the state of a task")
        self._written = self._record.state
        await self._connection.feed.publish(PROGRESS, self.archive.key_hash)

    async def _refresh_revision(self) -> None:
        """Read the revision to replace: our own if a reply was lost, 0 after a wipe.

        Raises:
            LeaseLost: The record there belongs to another worker, or is unreadable.
        """
        entry = await self._connection.kv.get_or_marker(STATES, self.archive.key_hash)
        current = read_state(self._connection, self.archive, entry)
        if current is None and entry and entry.value:
            raise LeaseLost("the record of this attempt was replaced by an unreadable one")
        if current and current.owner != self.id and not self._supersedes(current):
            raise LeaseLost("another worker has claimed this task")
        self._revision = entry.revision if entry else 0

    def _supersedes(self, other: TaskRecord) -> bool:
        """Return whether *other* is of an earlier delivery of the same message."""
        ours = self._record
        return other.sequence == ours.sequence and other.delivery < ours.delivery
