"""A delivered message of the work queue: one task, for one attempt."""

from contextlib import suppress
from datetime import timedelta

import nats.errors
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import WAITING
from archiver.jetstream.kv_buckets import TASKS
from archiver.jetstream.records import Order, WaitingRecord, decode_order, encode
from archiver.model import Archive
from archiver.tasks import Priority

ACK_TIMEOUT_S = 2.0


class TaskMessage:
    """``sequence`` is its number in the queue, ``delivery`` how often it has been delivered."""

    def __init__(self, message: Msg, *, connection: Connection) -> None:
        priority, self.source, self.key_hash = message.subject.split(".")[-3:]
        self.priority = Priority(priority)
        self.sequence = message.metadata.sequence.stream
        self.delivery = message.metadata.num_delivered
        self._message = message
        self._connection = connection

    def order(self) -> tuple[Order, Archive] | None:
        """Return what to build, or None if the message cannot be read."""
        order = decode_order(self._message.data)
        archive = order.archive(self._message.subject) if order else None
        return (order, archive) if order and archive else None

    async def reject(self) -> None:
        """Log an unreadable message, and remove it from the queue."""
        self._connection.unreadable.note(TASKS, self.key_hash, self.sequence)
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
        waiting = WaitingRecord(
            source=self.source, priority=self.priority, after_s=after.total_seconds()
        )
        await self._connection.feed.publish(WAITING, self.key_hash, encode(waiting))

    async def acknowledge(self) -> None:
        """Remove the message from the queue. Raises EngineUnavailable."""
        try:
            await self._message.ack_sync(timeout=ACK_TIMEOUT_S)
        except nats.errors.MsgAlreadyAckdError:
            return
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            if await self._is_gone():  # as after a wipe
                return
            raise EngineUnavailable("the engine did not confirm an acknowledgement") from exc

    async def _is_gone(self) -> bool:
        last = await self._connection.tasks.last(self._message.subject)
        return last is None or last.revision != self.sequence
