"""Counts of the fleet, by message counters of JetStream (ADR-49 of NATS, from version 2.12 on)."""

import asyncio
import time
from datetime import timedelta

import nats.js.errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.task_subject import client_token
from archiver.jetstream.translation import translated
from archiver.telemetry import log

PATIENCE = timedelta(seconds=0.2)
"""How long a request waits for a count. The process has a count of its own."""

KEPT_FOR = timedelta(minutes=3)
"""The clocks of a fleet may differ by a minute."""

COUNTS_MAX = 100_000
"""Counters that the server keeps: 10 MB of its memory. It forgets the oldest first."""

COUNTS_MAX_BYTES = 32 << 20
"""Room for three times as long names of clients as there are."""

COUNTERS_DISABLED = 10168
"""An older server has created the stream."""

INCREMENT = {"Nats-Incr": "+1"}

PAUSE = timedelta(minutes=1)
"""How long a server that cannot count is not asked again."""


class JetStreamCounters:
    """Implements ``ports.counters.Counters``. The counts are in the memory of one server."""

    def __init__(self, *, connection: Connection) -> None:
        self._link = connection.link
        namespace = connection.streams.namespace
        self.stream = f"{namespace}_counts"
        self._prefix = f"{namespace}.counts"
        self._resume_at = 0.0

    async def count(self, kind: str, client: str, *, minute: int) -> int:
        if time.monotonic() < self._resume_at:
            raise EngineUnavailable("the engine could not count, and is not asked for a while")
        subject = f"{self._prefix}.{kind}.{minute}.{client_token(client)}"
        with translated("count"):
            async with asyncio.timeout(PATIENCE.total_seconds()):
                total = await self._increment(subject)
        if total is None:
            raise EngineUnavailable("the engine cannot count")
        return int(total)

    async def _increment(self, subject: str) -> str | None:
        """Return the new total; None, and ask again later, if the server cannot count."""
        js = self._link.js
        try:
            try:
                return await self._publish(subject)
            except nats.js.errors.NoStreamResponseError:
                await js.add_stream(self._config())
                return await self._publish(subject)
        except nats.js.errors.APIError as exc:  # as of an account that allows no other stream
            log.warning("limits.not_counted", err_code=exc.err_code)
            self._resume_at = time.monotonic() + PAUSE.total_seconds()
            return None

    async def _publish(self, subject: str) -> str | None:
        """Return the new total, or None if the stream has no counters."""
        js = self._link.js
        try:
            if total := (await js.publish(subject, headers=INCREMENT)).val:
                return total
        except nats.js.errors.APIError as exc:
            if exc.err_code != COUNTERS_DISABLED:
                raise
        await js.delete_stream(self.stream)  # so that a newer server creates it with counters
        self._resume_at = time.monotonic() + PAUSE.total_seconds()
        return None

    def _config(self) -> StreamConfig:
        return StreamConfig(
            name=self.stream,
            subjects=[f"{self._prefix}.*.*.*"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.MEMORY,
            discard=DiscardPolicy.OLD,
            max_age=KEPT_FOR.total_seconds(),
            max_msgs=COUNTS_MAX,
            max_bytes=COUNTS_MAX_BYTES,
            max_msgs_per_subject=1,
            num_replicas=1,
            allow_msg_counter=True,
        )
