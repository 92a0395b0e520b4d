"""The queue's front: create or join the task of an archive, and say how far it is."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from archiver.errors import ArchiverError, EngineUnavailable
from archiver.health import WorkerReport
from archiver.jetstream.buckets import REPAIRS, STATES, TASKS
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import COPIES, FAILED, FEED, FINISHED
from archiver.jetstream.lanes import lane_name
from archiver.jetstream.presence import workers
from archiver.jetstream.records import (
    Order,
    RepairRecord,
    decode_failure,
    decode_finished,
    decode_order,
    encode,
)
from archiver.jetstream.states import read_state
from archiver.jetstream.streams import Streams
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive, EnqueueOutcome, Region
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, TaskState

FAILURE_TTL = timedelta(seconds=10)
"""As for unknown revs: a fault on the host's side may be mended at any time."""

BACKLOG_TTL = timedelta(seconds=1)
"""However many ask how long to wait, the server is asked as often."""

NEWEST_SHARE = 0.2
"""Of the last attempt in the mean: some ten of them make it."""

LOOK_AGAIN_AFTER = tuple(timedelta(seconds=0.05 * 2**n) for n in range(4))
"""A cluster needs milliseconds to store a message, or to lose it."""

REPAIR_MEMORY = timedelta(seconds=60)

FAILURES_MAX_BYTES = 8 * MEGABYTE
REPAIRS_MAX_BYTES = 8 * MEGABYTE
SOURCES_MAX_BYTES = MEGABYTE
"""Of what is remembered by source: more than any installation has."""


class JetStream:
    """Implements ``ports.Engine``.

    An archive's message has the subject ``tasks.{priority}.{source}.{digest}`` in a work queue.
    The server refuses a second one on any ``tasks.*.*.{digest}`` for as long as the first is
    waiting, running or backing off.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._streams = Streams(connection=connection, wanted=connection.provision.replicas)
        self._enqueuing: SingleFlight[str, EnqueueOutcome] = SingleFlight()
        self._failures: BoundedCache[str, Failure] = BoundedCache(
            ttl=FAILURE_TTL, max_bytes=FAILURES_MAX_BYTES
        )
        self._repairs: BoundedCache[str, None] = BoundedCache(
            ttl=REPAIR_MEMORY, max_bytes=REPAIRS_MAX_BYTES
        )
        self._backlogs: BoundedCache[str, Backlog | None] = BoundedCache(
            ttl=BACKLOG_TTL, max_bytes=SOURCES_MAX_BYTES
        )
        self._counting: SingleFlight[str, Backlog | None] = SingleFlight()
        self._mean_s: BoundedCache[str, float] = BoundedCache(max_bytes=SOURCES_MAX_BYTES)
        self._on_accepted: list[Callable[[Archive], None]] = []
        connection.watch(FAILED, self._remember_failure)
        connection.watch(FINISHED, self._remember_duration)
        connection.watch(COPIES, lambda digest, _payload: self._repairs.pop(digest))

    def _remember_failure(self, digest: str, payload: bytes) -> None:
        if failure := decode_failure(payload):
            self._failures.put(digest, failure)
        else:
            self._connection.note_unreadable(FEED, digest)

    def _remember_duration(self, digest: str, payload: bytes) -> None:
        finished = decode_finished(payload)
        if finished is None:
            self._connection.note_unreadable(FEED, digest)
            return
        mean_s = self._mean_s.get(finished.source)
        if mean_s is None:
            mean_s = finished.duration_s
        mean_s += NEWEST_SHARE * (finished.duration_s - mean_s)
        self._mean_s.put(finished.source, mean_s)

    def on_accepted(self, note: Callable[[Archive], None]) -> None:
        """Call *note* for each archive whose task was created or joined here for a client."""
        self._on_accepted.append(note)

    async def backlog(self, source: str) -> Backlog | None:
        if source in self._backlogs:
            return self._backlogs.get(source)
        return await self._counting.run(source, lambda: self._count(source))

    async def _count(self, source: str) -> Backlog | None:
        stream, name = self._connection.tasks_stream, lane_name(source, Priority.HIGH)
        try:
            lane = await self._connection.consumer(stream, name)
        except EngineUnavailable:
            lane = None
        backlog = None
        if lane:
            mean_s = self._mean_s.get(source)
            backlog = Backlog(
                waiting=lane.num_pending or 0,
                running=lane.num_ack_pending or 0,
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

        await self._enqueuing.run(archive.key_hash, publish)
        if priority is Priority.HIGH:
            for note in self._on_accepted:
                note(archive)
        return outcome

    async def _publish(self, archive: Archive, priority: Priority) -> EnqueueOutcome:
        """Store the archive's message; return JOINED only once another one was seen in the queue.

        Raises:
            EngineUnavailable: There is no message, as far as can be told.
        """
        connection = self._connection
        order = encode(Order(key=archive.key, created_at=datetime.now(UTC)))
        only_one = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Last-Subject-Sequence-Subject": self._any_lane(archive),
        }
        await connection.wait()
        subject = connection.subject("tasks", priority, archive.source, archive.key_hash)
        for pause in LOOK_AGAIN_AFTER:
            try:
                await connection.publish(subject, order, only_one)
            except WrongRevision:
                if standing := await self._order(archive):
                    return (
                        EnqueueOutcome.CREATED
                        if encode(standing) == order
                        else EnqueueOutcome.JOINED
                    )
            else:
                return EnqueueOutcome.CREATED
            await asyncio.sleep(pause.total_seconds())
        raise EngineUnavailable("the engine refused a task, and has none for this archive")

    async def _order(self, archive: Archive) -> Order | None:
        """Return the order in the queue for *archive*, in any lane.

        A message that cannot be read is removed: no worker could build anything from it, and the
        queue takes no second message for the archive.
        """
        connection = self._connection
        stream, subject = connection.tasks_stream, self._any_lane(archive)
        message = await connection.last_message(stream, subject)
        if message is None:
            return None
        order = decode_order(message.value)
        if order is None or order.key != archive.key:
            connection.note_unreadable(TASKS, archive.key_hash, message.revision)
            await connection.remove(stream, subject, revision=message.revision)
            return None
        return order

    def _any_lane(self, archive: Archive) -> str:
        return self._connection.subject("tasks", "*", "*", archive.key_hash)

    async def task(self, archive: Archive) -> Task | None:
        entry = await self._connection.get(STATES, archive.key_hash)
        record = read_state(self._connection, archive, entry)
        if record and not record.state.terminal:
            return record.task(archive)
        created_at = await self._waiting_since(archive)
        if created_at and (record is None or record.created_at != created_at):
            return Task(
                archive=archive,
                state=TaskState.PENDING,
                phase=Phase.QUEUED,
                created_at=created_at,
            )
        return record.task(archive) if record else None

    async def _waiting_since(self, archive: Archive) -> datetime | None:
        """Return when the archive's message came into the queue, if it is still there."""
        order = await self._order(archive)
        return order.created_at if order else None

    async def repair_later(self, archive: Archive, missing: Sequence[Region]) -> None:
        if archive.key_hash in self._repairs:
            return
        if await self._connection.get(REPAIRS, archive.key_hash) is None:
            record = RepairRecord(key=archive.key, missing=missing, due_at=datetime.now(UTC))
            await self._connection.put(REPAIRS, archive.key_hash, encode(record))
        self._repairs.put(archive.key_hash, None)

    async def repaired(self, archive: Archive) -> None:
        self._repairs.pop(archive.key_hash)
        if entry := await self._connection.get(REPAIRS, archive.key_hash):
            await self._connection.purge(REPAIRS, archive.key_hash, revision=entry.revision)

    async def workers(self) -> Sequence[WorkerReport]:
        return await workers(self._connection)

    async def check(self) -> ArchiverError | None:
        try:
            await self._require_leaders()
            await self._streams.prove()
        except EngineUnavailable as exc:
            return exc
        return None

    async def _require_leaders(self) -> None:
        streams = await self._streams.look()
        if leaderless := [name for stream in streams for name in stream.leaderless]:
            raise EngineUnavailable(f"no server of the engine leads {', '.join(leaderless)}")
