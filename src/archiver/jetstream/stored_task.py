"""A task as NATS stores it: its message in the queue, and its state, written by one attempt."""

from contextlib import suppress
from datetime import timedelta

import nats.errors
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable, LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.feed import PROGRESS, WAITING
from archiver.jetstream.later_orders import set_aside
from archiver.jetstream.newer_records import is_of_later_release
from archiver.jetstream.records import (
    Order,
    TaskRecord,
    WaitingRecord,
    decode_order,
    decode_task,
    encode,
)
from archiver.jetstream.streams import STATES, TASKS
from archiver.jetstream.task_stream import StoredMessage
from archiver.jetstream.translation import FAILURES, WrongRevision
from archiver.model import Archive
from archiver.tasks import Priority
from archiver.telemetry.tracing import traceparent_in

ACK_TIMEOUT_S = 2.0

WRITES_MAX = 3
"""A lost reply costs one. The others allow for refusals without a foreign record."""


class TaskMessage:
    """``sequence`` is its number in the queue, ``delivery`` how often it has been delivered."""

    def __init__(self, message: Msg, *, connection: Connection) -> None:
        priority, self.source, _, self.key_hash = connection.tasks.parse(message.subject)
        self.priority = Priority(priority)
        self.sequence = message.metadata.sequence.stream
        self.delivery = message.metadata.num_delivered
        self.traceparent = traceparent_in(message.headers)
        self._message = message
        self._connection = connection

    def order(self) -> tuple[Order, Archive] | None:
        """Return what to build, or None if the message cannot be read."""
        order = decode_order(self._message.data)
        archive = order.archive(source=self.source, key_hash=self.key_hash) if order else None
        return (order, archive) if order and archive else None

    async def reject(self) -> None:
        """Log an unreadable message, and remove it from the queue.

        One of a later release is set aside, for a worker that can read it.
        """
        newer = is_of_later_release(TASKS, self.key_hash, self._message.data)
        self._connection.unreadable.note(TASKS, self.key_hash, self.sequence, newer=newer)
        if newer:
            stored = StoredMessage(
                self._message.subject, self._message.data, self.sequence, self.traceparent
            )
            await set_aside(self._connection.tasks, stored)
        with suppress(nats.errors.Error, OSError):
            await self._message.term()

    async def renew(self) -> None:
        with suppress(nats.errors.Error, OSError):
            await self._message.in_progress()

    async def give_back(self, *, after: timedelta = timedelta(0)) -> None:
        """Have the message delivered again *after* a delay, and announce that.

        If this fails, the lease runs out, with the same effect.
        """
        with suppress(nats.errors.Error, OSError):
            await self._message.nak(delay=after.total_seconds() or None)
        after_s = after.total_seconds()
        waiting = WaitingRecord(source=self.source, priority=self.priority, after_s=after_s)
        await self._connection.feed.publish(WAITING, self.key_hash, encode(waiting))

    async def acknowledge(self) -> None:
        """Remove the message from the queue. Raises EngineUnavailable."""
        try:
            await self._message.ack_sync(timeout=ACK_TIMEOUT_S)
        except nats.errors.MsgAlreadyAckdError:
            return
        except FAILURES as exc:
            if await self._is_gone():  # as after a wipe
                return
            raise EngineUnavailable("the engine did not confirm an acknowledgement") from exc

    async def _is_gone(self) -> bool:
        last = await self._connection.tasks.last(self._message.subject)
        return last is None or last.revision != self.sequence


def read_state(
    connection: Connection, archive: Archive, entry: KvEntry | None
) -> TaskRecord | None:
    """Return the record in *entry*, or None if it is empty or unreadable.

    An unreadable entry is not removed, since a later release may have written it. The next attempt
    at the task overwrites it: the server delivers no task that another worker runs.
    """
    if entry is None or not entry.value:
        return None
    record = decode_task(entry.value)
    if record is None or record.key != archive.key:
        newer = is_of_later_release(STATES, archive.key_hash, entry.value)
        connection.unreadable.note(STATES, archive.key_hash, entry.revision, newer=newer)
        return None
    return record


class TaskStateWriter:
    """Writes the records of one attempt.

    The fence: every write names the revision that it replaces. If a write fails because a foreign
    record is there, the lease is lost. Any other failed write proves nothing.
    """

    def __init__(self, *, connection: Connection, archive: Archive, owner: str) -> None:
        self._connection = connection
        self._archive = archive
        self._owner = owner
        self._revision = 0

    async def read_record(self) -> TaskRecord | None:
        """Return the present record, which the next write replaces. Raises EngineUnavailable."""
        entry = await self._connection.kv.get_or_marker(STATES, self._archive.key_hash)
        self._revision = entry.revision if entry else 0
        return read_state(self._connection, self._archive, entry)

    async def write(self, record: TaskRecord) -> None:
        """Write *record* over the revision that was written or read last; notify the fleet.

        Raises:
            LeaseLost: A foreign record is there.
            EngineUnavailable: The record is not known to be written.
        """
        kv, key_hash = self._connection.kv, self._archive.key_hash
        for _ in range(WRITES_MAX):
            try:
                self._revision = await kv.update(
                    STATES, key_hash, encode(record), revision=self._revision
                )
            except WrongRevision:
                await self._refresh_revision(record)
            else:
                return await self._connection.feed.publish(PROGRESS, key_hash)
        raise EngineUnavailable("the engine does not accept the state of a task")

    async def _refresh_revision(self, ours: TaskRecord) -> None:
        """Read the revision to replace: our own if a reply was lost, 0 after a wipe."""
        entry = await self._connection.kv.get_or_marker(STATES, self._archive.key_hash)
        current = read_state(self._connection, self._archive, entry)
        if current is None and entry and entry.value:
            raise LeaseLost("the record of this attempt was replaced by an unreadable one")
        if current and current.owner != self._owner:
            earlier = current.sequence == ours.sequence and current.delivery < ours.delivery
            if not earlier:  # delivery of the same message
                raise LeaseLost("another worker has claimed this task")
        self._revision = entry.revision if entry else 0
