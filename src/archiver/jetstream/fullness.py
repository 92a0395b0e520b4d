"""Measures how full the fleet's streams are."""

import asyncio
from datetime import timedelta

import nats.js.errors
from nats.js.api import StreamInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.streams import BUCKETS, TASKS
from archiver.jetstream.translation import translated
from archiver.telemetry import METRICS, log

INTERVAL = timedelta(minutes=1)

NEARLY_FULL = 0.95
"""A full bucket drops its oldest entry for each new one, so it is never quite full."""


class Fullness:
    """Measures the streams for ``archiver_engine_fullness``, and logs when one becomes full."""

    def __init__(self, *, connection: Connection) -> None:
        self._link = connection.link
        streams = connection.streams
        self._streams = {TASKS: streams.tasks_stream} | {
            bucket: streams.bucket_stream(bucket) for bucket in BUCKETS
        }
        self._full: frozenset[str] = frozenset()

    async def keep_measuring(self) -> None:
        while True:
            try:
                await self.measure()
            except EngineUnavailable as exc:
                log.debug("engine.not_measured", code=exc.code)
            await asyncio.sleep(INTERVAL.total_seconds())

    async def measure(self) -> None:
        """Update the metric. Log each stream that is full and was not at the last measurement.

        Raises EngineUnavailable.
        """
        fullness = {place: await self._measure(name) for place, name in self._streams.items()}
        for place, share in fullness.items():
            METRICS.engine_fullness.labels(place=place).set(share)
        full = frozenset(place for place, share in fullness.items() if share >= NEARLY_FULL)
        for place in sorted(full - self._full):
            log.warning("engine.nearly_full", stream=self._streams[place])
        self._full = full

    async def _measure(self, name: str) -> float:
        with translated("measure a stream"):
            try:
                return fullness_of(await self._link.js.stream_info(name))
            except nats.js.errors.NotFoundError:
                return 0.0


def fullness_of(info: StreamInfo) -> float:
    """Return the used part of the entries or of the bytes, whichever is larger. -1 is no limit."""
    pairs = (
        (info.state.messages, info.config.max_msgs),
        (info.state.bytes, info.config.max_bytes),
    )
    return max(used / limit if limit and limit > 0 else 0.0 for used, limit in pairs)
