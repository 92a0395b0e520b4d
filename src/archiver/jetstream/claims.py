"""A worker's hold on a task: the lease, what is written while it lasts, and how it ends."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import nats.errors
from nats.aio.msg import Msg

from archiver.errors import ArchiverError, EngineUnavailable, LeaseLost, WorkersLost
from archiver.jetstream.buckets import STATES
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import FAILED, FINISHED, PROGRESS, WAITING
from archiver.jetstream.lookups import Entry
from archiver.jetstream.records import (
    DURATION_MAX_S,
    FinishedRecord,
    Order,
    TaskRecord,
    WaitingRecord,
    encode,
)
from archiver.jetstream.retry import Outage
from archiver.jetstream.states import read_state
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive
from archiver.tasks import Failure, Phase, Priority, TaskState
from archiver.telemetry import describe, log

PROGRESS_INTERVAL = timedelta(seconds=0.5)
HEARTBEATS_PER_LEASE = 4

WRITES_MAX = 3
"""A lost reply costs one; each of the others is a refusal although nobody else's record stands."""

VANISHED_MAX = 5
"""Workers that may fall silent over one task before it is held to be the cause."""

FINAL_WRITE_TIMEOUT = timedelta(minutes=5)
"""An engine that is away longer will hand the task out again, to find the archive complete."""


class Claim:
    """One attempt. Implements ``ports.Attempt``.

    The fence: every write of the task's state names the revision that it replaces. A write that
    fails because somebody else's stands there means that the lease went over to them. A write that
    fails in any other way means nothing, and never ends the attempt.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        message: Msg,
        order: Order,
        archive: Archive,
        lease: timedelta,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self._connection = connection
        self._message = message
        self._lease = lease
        self._revision = 0
        self._phase = Phase.CONNECTING
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
    def is_open(self) -> bool:
        """Whether it is written that this attempt began, and not how it ended."""
        return self._written is TaskState.STARTED

    async def take(self) -> bool:
        """Write the task down as ours; return False if there is nothing left to do with it.

        Raises:
            EngineUnavailable: It could not be written; the message will come again.
            WorkersLost: It is ours, and must not be tried any more.
            LeaseLost: It was handed out again already.
        """
        entry = await self._connection.trace(STATES, self.archive.key_hash)
        last = self._earlier(entry)
        if last and last.state.terminal:
            await self._acknowledge()
            return False
        if last and self._is_outrun_by(last):
            raise LeaseLost("a later delivery of this task has been claimed")
        self._revision = entry.revision if entry else 0
        self._record = self._begin(last)
        await self._write()
        if self._record.vanished >= VANISHED_MAX:
            raise WorkersLost(f"{VANISHED_MAX} workers fell silent over this task")
        return True

    def _earlier(self, entry: Entry | None) -> TaskRecord | None:
        """Return what earlier attempts at this very message left behind, if any did.

        Its number alone does not tell: a queue that was wiped counts from 1 again.
        """
        last = read_state(self._connection, self.archive, entry)
        same = last and (last.sequence, last.created_at) == (
            self._message.metadata.sequence.stream,
            self._order.created_at,
        )
        return last if same else None

    def _is_outrun_by(self, last: TaskRecord) -> bool:
        """Tell whether a later delivery holds the task.

        One that gave the task back may have a higher number: a lane that is made again counts
        deliveries from 1.
        """
        later = last.delivery > self._message.metadata.num_delivered
        return later and last.state is TaskState.STARTED

    def _begin(self, last: TaskRecord | None) -> TaskRecord:
        """Return the first record of this attempt, counting on from the one before, if any."""
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
            phase=self._phase,
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
        self._phase = phase
        self._bytes_done = bytes_done

    async def hold(self) -> None:
        with suppress(EngineUnavailable):
            await self._write()

    async def keep(self) -> None:
        """Renew the lease and write down progress, or that there is none, until cancelled.

        Raises:
            LeaseLost: Another worker has the task.
        """
        beat = self._lease / HEARTBEATS_PER_LEASE
        beaten = datetime.now(UTC)
        while True:
            await asyncio.sleep(min(PROGRESS_INTERVAL, beat).total_seconds())
            with suppress(EngineUnavailable):
                if datetime.now(UTC) - beaten >= beat:
                    await self._beat()
                    await self._write()
                    beaten = datetime.now(UTC)
                elif (self._phase, self._bytes_done) != (
                    self._record.phase,
                    self._record.bytes_done,
                ):
                    await self._write()

    async def _beat(self) -> None:
        with suppress(nats.errors.Error, OSError):
            await self._message.in_progress()

    async def succeed(self) -> None:
        """Write SUCCESS, then let the queue forget the task.

        How long it took is told only if a client may have waited for it to be made.
        """
        made = self._phase is Phase.COMMITTING
        self.report(Phase.DONE, self._bytes_done)
        await self._end(TaskState.SUCCESS, error=None, failures=self.failures)
        if made and self._priority is Priority.HIGH:
            await self._connection.tell(FINISHED, self.archive.key_hash, encode(self._finished()))

    @property
    def _priority(self) -> Priority:
        return Priority(self._message.subject.split(".")[-3])

    def _finished(self) -> FinishedRecord:
        took = datetime.now(UTC) - (self._record.started_at or datetime.now(UTC))
        duration_s = min(max(took.total_seconds(), 0), DURATION_MAX_S)  # clocks are set at times
        return FinishedRecord(source=self.archive.source, duration_s=duration_s)

    async def fail(self, error: ArchiverError) -> None:
        """Write FAILURE with its reason, then let the queue forget the task."""
        failure = Failure(code=error.code, message=error.message)
        self.report(Phase.DONE, self._bytes_done)
        await self._end(
            TaskState.FAILURE, error=failure, failures=self.failures + 1, told=not error.retryable
        )

    async def _end(
        self, state: TaskState, *, error: Failure | None, failures: int, told: bool = False
    ) -> None:
        """Write how it ended, have a failure *told*, and let the queue forget the task.

        In this order: who reads of a failure may ask again at once, and the queue waits for a disk.
        """
        self._record = msgspec.structs.replace(
            self._record, state=state, error=error, failures=failures
        )
        async with asyncio.timeout(FINAL_WRITE_TIMEOUT.total_seconds()):
            await self._until_through(self._write)
            if told:
                await self._connection.tell(FAILED, self.archive.key_hash, encode(error))
            await self._until_through(self._acknowledge)

    async def _until_through(self, write: Callable[[], Awaitable[None]]) -> None:
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
        """Write RETRY with the reason, and have the task handed out again *after* a while."""
        failure = Failure(code=error.code, message=error.message)
        self._record = msgspec.structs.replace(self._record, outage_since=None)
        await self._give_back(error=failure, failures=self.failures + 1, after=after)

    def outage(self) -> Outage:
        """Note that an outage of ours ended this attempt; return what it has cost the task so far.

        An attempt that had begun to fetch shows that another outage was over.
        """
        spoils, now = self._phase is not Phase.CONNECTING, datetime.now(UTC)
        since = now if spoils else min(self._record.outage_since or now, now)
        spoiled = self._record.spoiled + spoils
        self._record = msgspec.structs.replace(self._record, outage_since=since, spoiled=spoiled)
        return Outage(lasted=now - since, spoiled=spoiled, spoils=spoils)

    async def wait(self, error: ArchiverError, *, after: timedelta) -> None:
        """Write RETRY with the reason, which is no failure of the task, and go on as ``retry``."""
        failure = Failure(code=error.code, message=error.message)
        await self._give_back(error=failure, failures=self.failures, after=after)

    async def hand_back(self) -> None:
        """Have the task handed out to somebody else at once: this worker is about to stop.

        The record has no error, since this attempt did not fail, whatever an earlier one did.
        """
        await self._give_back(error=None, failures=self.failures, after=timedelta(0))

    async def _give_back(self, *, error: Failure | None, failures: int, after: timedelta) -> None:
        self.report(Phase.WAITING)
        self._record = msgspec.structs.replace(
            self._record, state=TaskState.RETRY, error=error, failures=failures
        )
        with suppress(EngineUnavailable):  # then the lease runs out, which comes to the same
            await self._write()
        with suppress(nats.errors.Error, OSError):
            await self._message.nak(delay=after.total_seconds() or None)
        waiting = WaitingRecord(
            source=self.archive.source, priority=self._priority, after_s=after.total_seconds()
        )
        await self._connection.tell(WAITING, self.archive.key_hash, encode(waiting))

    async def _acknowledge(self) -> None:
        try:
            await self._message.ack_sync(timeout=2)
        except nats.errors.MsgAlreadyAckdError:
            return
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            if await self._is_gone():
                return
            raise EngineUnavailable("the engine did not take an acknowledgement") from exc

    async def _is_gone(self) -> bool:
        """Tell whether the message is not in the queue any longer, as after a wipe."""
        stream, subject = self._connection.tasks_stream, self._message.subject
        standing = await self._connection.last_message(stream, subject)
        return standing is None or standing.revision != self._message.metadata.sequence.stream

    async def _write(self) -> None:
        """Write the record over the one that we wrote, or read, last.

        Raises:
            LeaseLost: Somebody else's was read there.
            EngineUnavailable: It is not written, as far as can be told.
        """
        self._record = msgspec.structs.replace(
            self._record,
            phase=self._phase,
            bytes_done=self._bytes_done,
            updated_at=datetime.now(UTC),
        )
        for _ in range(WRITES_MAX):
            try:
                self._revision = await self._connection.update(
                    STATES, self.archive.key_hash, encode(self._record), revision=self._revision
                )
            except WrongRevision:
                await self._catch_up()
            else:
                break
        else:
            raise EngineUnavailable("the engine does not take the state of a task")
        self._written = self._record.state
        await self._connection.tell(PROGRESS, self.archive.key_hash)

    async def _catch_up(self) -> None:
        """Learn the revision to replace: our own, if a reply was lost; none, after a wipe."""
        entry = await self._connection.trace(STATES, self.archive.key_hash)
        current = read_state(self._connection, self.archive, entry)
        if current is None and entry and entry.value:
            raise LeaseLost("what stands in the place of this attempt's record cannot be read")
        if current and current.owner != self.id and not self._supersedes(current):
            raise LeaseLost("another worker has claimed this task")
        self._revision = entry.revision if entry else 0

    def _supersedes(self, other: TaskRecord) -> bool:
        """Tell whether *other* is of an earlier delivery of the same message."""
        ours = self._record
        return other.sequence == ours.sequence and other.delivery < ours.delivery
