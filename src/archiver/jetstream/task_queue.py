"""The queue as its clients use it: creates or joins the task of an archive, and reports on it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from archiver.errors import EngineUnavailable, LimitReached
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import COPIES, FAILED, FEED, FINISHED
from archiver.jetstream.lanes import SOURCES_MAX_BYTES, Lanes
from archiver.jetstream.newer_records import is_of_later_release
from archiver.jetstream.promotions import Promotions
from archiver.jetstream.records import Order, decode_failure, decode_finished, decode_order, encode
from archiver.jetstream.stored_task import read_state
from archiver.jetstream.streams import STATES, TASKS
from archiver.jetstream.task_subject import (
    BACKGROUND,
    DEFERRED,
    PARKED,
    TaskSubject,
    client_token,
)
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive, EnqueueOutcome
from archiver.ports.queue import Admit, Standing
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.notifications import Subscribers
from archiver.runtime.single_flight import SingleFlight
from archiver.runtime.turns import Turns
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, TaskState, Urgency
from archiver.telemetry.tracing import Kind, SpanName, current_traceparent, span

PATIENCE = timedelta(seconds=1)
"""How long a request waits for a server that restarts: better a late answer than a 503."""

FAILURE_TTL = timedelta(seconds=10)
"""As for unknown revs: a fault of the host may be corrected at any time."""

NEWEST_SHARE = 0.2
"""Weight of the last attempt in the mean, which about ten attempts determine."""

CHECK_AGAIN_AFTER = tuple(timedelta(seconds=0.05 * 2**n) for n in range(4))
"""A cluster needs milliseconds to store or to lose a message."""

FAILURES_MAX_BYTES = 8 * MEGABYTE

MANY = 200
"""A client with so many open tasks is counted once a second, because the server lists them."""

COUNTED_FOR = timedelta(seconds=1)


class Queued(NamedTuple):
    """A task in the queue. One that a later release has created may have no readable ``order``.

    ``traceparent`` names the span that created it, if there was one.
    """

    order: Order | None
    subject: TaskSubject
    traceparent: str


class JetStreamTaskQueue:
    """Implements ``ports.queue.TaskQueue`` and ``TaskEvents``.

    An archive's message in the work queue has the subject
    ``tasks.{priority}.{source}.{client}.{key_hash}``, with PARKED for the priority before its
    client's turn, and DEFERRED before its source has room. The server refuses a second one on any
    ``tasks.*.*.*.{key_hash}`` while the first is waiting, running or backing off. A message of an
    earlier version, without a client, is looked for before.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._enqueuing: SingleFlight[str, Queued] = SingleFlight()
        self._failures: BoundedCache[str, Failure] = BoundedCache(
            ttl=FAILURE_TTL, max_bytes=FAILURES_MAX_BYTES
        )
        self._lanes = Lanes(tasks=connection.tasks)
        self._turns = Turns()
        self._many: BoundedCache[str, int] = BoundedCache(ttl=COUNTED_FOR, max_bytes=MEGABYTE)
        self._promotions = Promotions(
            tasks=connection.tasks, lanes=self._lanes, open_tasks=self._open_tasks
        )
        self._mean_s: BoundedCache[str, float] = BoundedCache(max_bytes=SOURCES_MAX_BYTES)
        self.accepted: Subscribers[[Archive, str, Urgency]] = Subscribers()
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

    async def backlog(self, archive: Archive) -> Backlog | None:
        try:
            message = await self._connection.tasks.find(archive.key_hash)
        except EngineUnavailable:
            return None
        lane = self._connection.tasks.parse(message.subject).priority if message else Priority.HIGH
        load = await self._lanes.load_before(archive.source, lane)
        if load is None:
            return None
        mean_s = self._mean_s.get(archive.source)
        return Backlog(
            waiting=load.waiting,
            running=load.running,
            mean=None if mean_s is None else timedelta(seconds=mean_s),
            parked=lane in {PARKED, DEFERRED},
        )

    def recent_failure(self, archive: Archive) -> Failure | None:
        return self._failures.get(archive.key_hash)

    async def enqueue(
        self,
        archive: Archive,
        *,
        priority: Priority = Priority.HIGH,
        client: str = "",
        admit: Admit | None = None,
        urgency: Urgency = Urgency.NOW,
        needs_host: bool = True,
    ) -> EnqueueOutcome:
        outcome = EnqueueOutcome.JOINED
        order = Order(
            key=archive.key,
            created_at=datetime.now(UTC),
            client=client,
            announced=urgency is Urgency.ANNOUNCED,
        )
        deferred = urgency is not Urgency.NOW

        async def create_or_join() -> Queued:
            nonlocal outcome
            await self._connection.link.wait(PATIENCE)
            if queued := await self._queued(archive):
                return queued
            if client:
                lane = DEFERRED if deferred else None if needs_host else Priority.LOW
                outcome, queued = await self._create_for(order, archive, admit, lane)
            else:
                lane = priority if needs_host else Priority.LOW
                outcome, queued = await self._publish(archive, lane, order)
            return queued

        leads = archive.key_hash not in self._enqueuing
        with span(
            SpanName.TASK, kind=Kind.PRODUCER, key=archive.key, source=archive.source
        ) as producer:
            try:
                queued = await self._enqueuing.join_or_start(archive.key_hash, create_or_join)
            except LimitReached:  # of the client that leads
                if leads:
                    raise
                own = f"{archive.key_hash} {client}"
                queued = await self._enqueuing.join_or_start(own, create_or_join)
            producer.set(outcome=outcome)
            if outcome is EnqueueOutcome.JOINED:
                producer.link(queued.traceparent)
        if client and not deferred:
            await self._promotions.promote(queued.subject, client)
        if priority is not Priority.LOW:
            self.accepted.notify(archive, client, urgency)
        return outcome

    async def _create_for(
        self, order: Order, archive: Archive, admit: Admit | None, lane: str | None
    ) -> tuple[EnqueueOutcome, Queued]:
        """Create a task of a client, one at a time, so that its open tasks are counted exactly.

        Without a *lane*, it gets that of the next task of such a client.
        """
        token = client_token(order.client)
        async with self._turns.of(token):
            open_tasks = await self._open_tasks(token)
            if admit:
                waiting = await self._lanes.waiting(archive.source)
                await admit(Standing(open_tasks=open_tasks, waiting=waiting))
            if lane is None:
                lane = await self._lanes.choose(archive.source, open_tasks=open_tasks)
            elif lane == DEFERRED:
                self._lanes.note_deferred(archive.source)
            return await self._publish(archive, lane, order)

    async def _open_tasks(self, token: str) -> int:
        count = self._many.get(token)
        if count is None:
            count = await self._connection.tasks.open_tasks(token)
            if count >= MANY:
                self._many.put(token, count)
        return count

    async def _publish(
        self, archive: Archive, priority: str, order: Order
    ) -> tuple[EnqueueOutcome, Queued]:
        tasks = self._connection.tasks
        token, traceparent = client_token(order.client), current_traceparent()
        subject = tasks.subject(priority, archive.source, token, archive.key_hash)
        for delay in CHECK_AGAIN_AFTER:
            try:
                await tasks.publish_new(subject, encode(order), traceparent=traceparent)
            except WrongRevision:
                if queued := await self._queued(archive):
                    ours = queued.order == order
                    outcome = EnqueueOutcome.CREATED if ours else EnqueueOutcome.JOINED
                    return outcome, queued
            else:
                return EnqueueOutcome.CREATED, Queued(order, tasks.parse(subject), traceparent)
            await asyncio.sleep(delay.total_seconds())
        raise EngineUnavailable(
            "the engine refused a task, and its queue holds no task for this archive"
        )

    async def _queued(self, archive: Archive) -> Queued | None:
        tasks = self._connection.tasks
        message = await tasks.find(archive.key_hash)
        if message is None:
            return None
        order, key_hash = decode_order(message.value), archive.key_hash
        if order and order.key == archive.key:
            return Queued(order, tasks.parse(message.subject), message.traceparent)
        newer = is_of_later_release(TASKS, key_hash, message.value)
        self._connection.unreadable.note(TASKS, key_hash, message.revision, newer=newer)
        if newer:
            return Queued(None, tasks.parse(message.subject), message.traceparent)
        # No worker could build it, and the queue accepts no second message for the archive.
        await tasks.remove(message.subject, revision=message.revision)
        return None

    async def drop(self, archive: Archive) -> None:
        connection, key_hash = self._connection, archive.key_hash
        repair = connection.tasks.subject(Priority.LOW, archive.source, BACKGROUND, key_hash)
        if message := await connection.tasks.last(repair):
            await connection.tasks.remove(repair, revision=message.revision)
        if await self._queued(archive):
            return
        if entry := await connection.kv.get_or_marker(STATES, key_hash):
            await connection.kv.purge(STATES, key_hash, revision=entry.revision)

    async def task(self, archive: Archive) -> Task | None:
        entry = await self._connection.kv.get(STATES, archive.key_hash)
        record = read_state(self._connection, archive, entry)
        if record and not record.state.terminal:
            return record.task(archive)
        if queued := await self._queued(archive):
            created_at = queued.order.created_at if queued.order else None
            if record is None or record.created_at != created_at:
                return Task(
                    archive=archive,
                    state=TaskState.PENDING,
                    phase=Phase.QUEUED,
                    created_at=created_at,
                )
        return record.task(archive) if record else None
