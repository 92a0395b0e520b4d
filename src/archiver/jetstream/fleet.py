"""The fleet's running workers, and the health of its queue."""

import secrets
from contextlib import suppress
from datetime import timedelta

from nats.js.api import AckPolicy, ConsumerConfig

from archiver.errors import ArchiverError, EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.replication import Replication
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_subject import BACKGROUND
from archiver.jetstream.translation import WrongRevision, translated

PROBE_PRIORITY = "check"
"""In the place of a priority: no worker's consumer receives the message. Also the key of an entry
among the task states, whose other keys are SHA-256s."""

IDLE_MAX = timedelta(minutes=5)
"""The server removes the consumer of a process that has not probed for this long."""

TIMEOUT_S = 2.0

PROBES_MAX = 8
"""Messages of one process that can wait if none is delivered. The server removes a message some
time after its acknowledgement, so the next one needs another subject."""


class QueueProbe:
    """Sends messages to a consumer of its own, as a proof that the queue delivers them."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._tasks = connection.tasks
        self._name = secrets.token_hex(8)
        self._consumer = _consumer_name()
        self._sent = 0

    async def prove_delivery(self) -> None:
        """Write a task state. Store a message in the work queue, receive and acknowledge it.

        Raises:
            EngineUnavailable: One of these failed.
        """
        await self._connection.kv.put(STATES, PROBE_PRIORITY, b"")
        try:
            with translated("deliver a message"):
                await self._ensure_consumer()  # first: nothing else would remove the message
                await self._publish()
                await self._receive()
        except EngineUnavailable:
            # If the consumer's server is gone, it is not deleted, and keeps its name. A deleted one
            # may still be on the disk, where the server accepts no other with the same name.
            with suppress(EngineUnavailable):
                await self._tasks.delete_consumer(self._consumer)
                self._consumer = _consumer_name()
            raise

    async def _ensure_consumer(self) -> None:
        config = ConsumerConfig(
            name=self._consumer,
            filter_subject=self._tasks.lane(PROBE_PRIORITY, self._name),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=TIMEOUT_S,
            inactive_threshold=IDLE_MAX.total_seconds(),
        )
        await self._tasks.ensure_consumer(config)

    async def _publish(self) -> None:
        self._sent = (self._sent + 1) % PROBES_MAX
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        with suppress(WrongRevision):  # an earlier message was stored and not received in time
            await self._connection.streams.publish(self._subject(str(self._sent)), b"", headers)

    async def _receive(self) -> None:
        js = self._connection.link.js
        subscription = await js.pull_subscribe_bind(self._consumer, self._tasks.name)
        try:
            message = (await subscription.fetch(1, TIMEOUT_S))[0]
            await message.ack_sync(timeout=TIMEOUT_S)
        finally:
            await subscription.unsubscribe()

    def _subject(self, number: str) -> str:
        return self._tasks.subject(PROBE_PRIORITY, self._name, BACKGROUND, number)


def _consumer_name() -> str:
    return f"{PROBE_PRIORITY}_{secrets.token_hex(8)}"


class JetStreamFleet:
    """Implements ``ports.queue.Fleet``."""

    def __init__(self, *, connection: Connection) -> None:
        self.workers = connection.reports.request
        self.drain, self.look_up = connection.drains.drain, connection.drains.look_up
        self._replication = Replication(
            connection=connection, configured_replicas=connection.streams.replicas
        )
        self._probe = QueueProbe(connection=connection)

    async def check_queue(self) -> ArchiverError | None:
        try:
            streams = await self._replication.status()
            if leaderless := [name for stream in streams for name in stream.leaderless]:
                return EngineUnavailable(f"no server of the engine leads {', '.join(leaderless)}")
            await self._probe.prove_delivery()
        except EngineUnavailable as exc:
            return exc
        return None
