"""Whether a bucket accepts writes, as proven by a recent write."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.errors import StorageUnavailable
from archiver.runtime.single_flight import SingleFlight

PROOF_TTL = timedelta(seconds=10)
"""How long a successful write proves that the bucket accepts writes. If the bucket starts to reject
them within this time, the fetch of an archive is wasted."""


class WriteProbe:
    """Remembers the last successful write, and runs *probe* if it is too old.

    A bucket that can be read may still reject writes: it is over its quota, or the keys are
    read-only.
    """

    def __init__(self, *, probe: Callable[[], Awaitable[None]], ttl: timedelta = PROOF_TTL) -> None:
        self._probe = probe
        self._ttl_s = ttl.total_seconds()
        self._probing: SingleFlight[None, None] = SingleFlight()
        self._proven_until = 0.0

    @contextmanager
    def record_write(self) -> Iterator[None]:
        """Count the block as a write: success renews the proof, StorageUnavailable revokes it."""
        try:
            yield
        except StorageUnavailable:
            self._proven_until = 0.0
            raise
        self._proven_until = time.monotonic() + self._ttl_s

    async def require_writable(self) -> None:
        """Return if the bucket accepts writes, else raise. Concurrent callers share one probe."""
        if time.monotonic() >= self._proven_until:
            await self._probing.join_or_start(None, self._probe)
