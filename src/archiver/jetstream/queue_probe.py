"""Proves that the work queue stores messages and delivers them, and that task states are stored."""

import secrets
from contextlib import suppress
from datetime import timedelta

from nats.js.api import AckPolicy, ConsumerConfig

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.kv_buckets import STATES
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
    """Sends messages to a consumer of its own."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._name = secrets.token_hex(8)
        self._consumer = _consumer_name()
        self._sent = 0

    async def run(self) -> None:
        """Write a task state. Store a message in the work queue, receive and acknowledge it.

        Raises:
            EngineUnavailable: One of these failed.
        """
        await self._connection.kv.put(STATES, PROBE_PRIORITY, b"")
        try:
            with translated("deliver a message"):
                await self._ensure_consumer()
                await self._publish()
                await self._receive()
        except EngineUnavailable:
            # If the consumer's server is gone, it is not deleted, and keeps its name. A deleted one
            # may still be on the disk, where the server accepts no other with the same name.
            with suppress(EngineUnavailable):
                await self._connection.tasks.delete_consumer(self._consumer)
                self._consumer = _consumer_name()
            raise

    async def _ensure_consumer(self) -> None:
        """Create the consumer before the message, which nothing else would remove."""
        config = ConsumerConfig(
            name=self._consumer,
            filter_subject=self._subject("*"),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=TIMEOUT_S,
            inactive_threshold=IDLE_MAX.total_seconds(),
        )
        await self._connection.tasks.ensure_consumer(config)

    async def _publish(self) -> None:
        self._sent = (self._sent + 1) % PROBES_MAX
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        with suppress(WrongRevision):  # an earlier message was stored and not received in time
            await self._connection.streams.publish(self._subject(str(self._sent)), b"", headers)

    async def _receive(self) -> None:
        js, stream = self._connection.link.js, self._connection.tasks.name
        subscription = await js.pull_subscribe_bind(self._consumer, stream)
        try:
            message = (await subscription.fetch(1, TIMEOUT_S))[0]
            await message.ack_sync(timeout=TIMEOUT_S)
        finally:
            await subscription.unsubscribe()

    def _subject(self, number: str) -> str:
        return self._connection.tasks.subject(PROBE_PRIORITY, self._name, number)


def _consumer_name() -> str:
    return f"{PROBE_PRIORITY}_{secrets.token_hex(8)}"
