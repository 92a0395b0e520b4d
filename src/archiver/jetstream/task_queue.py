"""The queue as its clients use it: creates or joins the task of an archive, and reports on it."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.consumers import consumer_name
from archiver.jetstream.feed import COPIES, FAILED, FEED, FINISHED
from archiver.jetstream.records import Order, decode_failure, decode_finished, decode_order, encode
from archiver.jetstream.stored_task import read_state
from archiver.jetstream.streams import STATES, TASKS
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive, EnqueueOutcome
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.notifications import Subscribers
from archiver.runtime.single_flight import SingleFlight
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, TaskState

PATIENCE = timedelta(seconds=1)
"""How long a request waits for a server that restarts: better a late answer than a 503."""

FAILURE_TTL = timedelta(seconds=10)
"""As for unknown revs: a fault of the host may be corrected at any time."""

BACKLOG_TTL = timedelta(seconds=1)
"""Bounds the requests to the server, however many clients wait."""

NEWEST_SHARE = 0.2
"""Weight of the last attempt in the mean, which about ten attempts determine."""

CHECK_AGAIN_AFTER = tuple(timedelta(seconds=0.05 * 2**n) for n in range(4))
"""A cluster needs milliseconds to store or to lose a message."""

FAILURES_MAX_BYTES = 8 * MEGABYTE
SOURCES_MAX_BYTES = MEGABYTE
"""For values per source: more than any installation has."""


class JetStreamTaskQueue:
    """Implements ``ports.queue.TaskQueue`` and ``TaskEvents``.

    An archive's message in the work queue has the subject
    ``tasks.{priority}.{source}.{key_hash}``. The server refuses a second one on any
    ``tasks.*.*.{key_hash}`` while the first is waiting, running or backing off.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._enqueuing: SingleFlight[str, EnqueueOutcome] = SingleFlight()
        self._failures: BoundedCache[str, Failure] = BoundedCache(
            ttl=FAILURE_TTL, max_bytes=FAILURES_MAX_BYTES
        )
        self._backlogs: BoundedCache[str, Backlog | None] = BoundedCache(
            ttl=BACKLOG_TTL, max_bytes=SOURCES_MAX_BYTES
        )
        self._counting: SingleFlight[str, Backlog | None] = SingleFlight()
        self._mean_s: BoundedCache[str, float] = BoundedCache(max_bytes=SOURCES_MAX_BYTES)
        self.accepted: Subscribers[[Archive]] = Subscribers()
        self.ended: Subscribers[[str]] = Subscribers()
        self.gaps: Subscribers[[]] = Subscribers()
        connection.feed.subscribe(FAILED, self._remember_failure)
        connection.feed.subscribe(FINISHED, self._remember_duration)
        for event in (COPIES, FAILED):
            connection.feed.subscribe(event, lambda key_hash, _payload: self.ended.notify(key_hash))
        connection.feed.gaps.add(self.gaps.notify)

    def _remember_failure(self, key_hash: str, payload: bytes) -> None:
        if failure := decode_failure(payload):
            self._failures.put(key_hash, failure)
        else:
            self._connection.unreadable.note(FEED, key_hash)

    def _remember_duration(self, key_hash: str, payload: bytes) -> None:
        finished = decode_finished(payload)
        if finished is None:
            self._connection.unreadable.note(FEED, key_hash)
            return
        before_s = self._mean_s.get(finished.source)
        mean_s = finished.duration_s if before_s is None else before_s
        mean_s += NEWEST_SHARE * (finished.duration_s - mean_s)
        self._mean_s.put(finished.source, mean_s)

    async def backlog(self, source: str) -> Backlog | None:
        if source in self._backlogs:
            return self._backlogs.get(source)
        return await self._counting.join_or_start(source, lambda: self._count(source))

    async def _count(self, source: str) -> Backlog | None:
        backlog, mean_s = None, self._mean_s.get(source)
        name = consumer_name(source, Priority.HIGH)
        with suppress(EngineUnavailable):
            if consumer := await self._connection.tasks.consumer(name):
                backlog = Backlog(
                    waiting=consumer.num_pending or 0,
                    running=consumer.num_ack_pending or 0,
                    mean=None if mean_s is None else timedelta(seconds=mean_s),
                )
        self._backlogs.put(source, backlog)
        return backlog

    def recent_failure(self, archive: Archive) -> Failure | None:
        return self._failures.get(archive.key_hash)

    async def enqueue(
        self, archive: Archive, *, priority: Priority = Priority.HIGH
    ) -> EnqueueOutcome:
        outcome = EnqueueOutcome.JOINED

        async def publish() -> EnqueueOutcome:
            nonlocal outcome
            outcome = await self._publish(archive, priority)
            return outcome

        await self._enqueuing.join_or_start(archive.key_hash, publish)
        if priority is Priority.HIGH:
            self.accepted.notify(archive)
        return outcome

    async def _publish(self, archive: Archive, priority: Priority) -> EnqueueOutcome:
        tasks = self._connection.tasks
        order = encode(Order(key=archive.key, created_at=datetime.now(UTC)))
        await self._connection.link.wait(PATIENCE)
        subject = tasks.subject(priority, archive.source, archive.key_hash)
        for delay in CHECK_AGAIN_AFTER:
            try:
                await tasks.publish_new(subject, order, unique=self._any_subject(archive))
            except WrongRevision:
                if stored := await self._order(archive):
                    ours = encode(stored) == order
                    return EnqueueOutcome.CREATED if ours else EnqueueOutcome.JOINED
            else:
                return EnqueueOutcome.CREATED
            await asyncio.sleep(delay.total_seconds())
        raise EngineUnavailable(
            "the engine refused a task, and its queue holds no task for this archive"
        )

    async def _order(self, archive: Archive) -> Order | None:
        tasks, subject = self._connection.tasks, self._any_subject(archive)
        message = await tasks.last(subject)
        if message is None:
            return None
        order = decode_order(message.value)
        if order is None or order.key != archive.key:
            # No worker could build it, and the queue accepts no second message for the archive.
            self._connection.unreadable.note(TASKS, archive.key_hash, message.revision)
            await tasks.remove(subject, revision=message.revision)
            return None
        return order

    def _any_subject(self, archive: Archive) -> str:
        return self._connection.tasks.subject("*", "*", archive.key_hash)

    async def task(self, archive: Archive) -> Task | None:
        entry = await self._connection.kv.get(STATES, archive.key_hash)
        record = read_state(self._connection, archive, entry)
        if record and not record.state.terminal:
            return record.task(archive)
        order = await self._order(archive)
        if order and (record is None or record.created_at != order.created_at):
            return Task(
                archive=archive,
                state=TaskState.PENDING,
                phase=Phase.QUEUED,
                created_at=order.created_at,
            )
        return record.task(archive) if record else None
