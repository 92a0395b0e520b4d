"""Which workers run: each of them answers for itself when another process asks."""

import os
import socket
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from archiver.health import WorkerReport
from archiver.jetstream.connection import Connection
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache

WORKERS = "workers"
"""The question. Only workers answer it, so that the server itself says if there is none."""

REPORT_TTL = timedelta(seconds=2)
"""Many web processes may ask. A region that is silent is not waited for once for each of them."""

_decode = msgspec.json.Decoder(WorkerReport).decode


class Reporter:
    """Answers for one worker."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._last: BoundedCache[None, bytes] = BoundedCache(ttl=REPORT_TTL, max_bytes=MEGABYTE)

    async def say(self) -> bytes:
        """Return this worker's report, encoded."""
        said = self._last.get(None)
        if said is None:
            said = msgspec.json.encode(await self._report())
            self._last.put(None, said)
        return said

    async def _report(self) -> WorkerReport:
        answers = await self._storage.writable()
        regions = {region: error.reason if error else None for region, error in answers.items()}
        return WorkerReport(name=self._name, regions=regions)


async def workers(connection: Connection) -> Sequence[WorkerReport]:
    """Return the report of each worker that answers.

    Raises:
        EngineUnavailable: The workers cannot be asked.
    """
    return [_read(answer) for answer in await connection.gather(WORKERS)]


def _read(answer: bytes) -> WorkerReport:
    """Return the report in *answer*. One that cannot be read still proves that a worker runs."""
    try:
        return _decode(answer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return WorkerReport(name="unreadable", regions={})
