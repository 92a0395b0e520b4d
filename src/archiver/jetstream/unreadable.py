"""Values that cannot be read: each is logged and counted once."""

from datetime import timedelta

from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.telemetry import METRICS, log

TTL = timedelta(days=1)
MAX_BYTES = 4 * MEGABYTE
"""For the names of logged values. A forgotten value is logged once more."""


class UnreadableValues:
    """Remembers which values were noted, for a day."""

    def __init__(self) -> None:
        self._noted: BoundedCache[tuple[str, str, int], None] = BoundedCache(
            ttl=TTL, max_bytes=MAX_BYTES
        )

    def note(self, place: str, key: str, revision: int = 0) -> None:
        """Log and count the value at *key* of a bucket, the queue or the feed."""
        if (place, key, revision) not in self._noted:
            self._noted.put((place, key, revision), None)
            METRICS.unreadable.labels(place=place).inc()
            log.warning("value.unreadable", place=place, key=key, revision=revision)
