"""Reports of the running workers: each worker answers for itself."""

import os
import socket
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from archiver.jetstream.fleet_requests import FleetRequests
from archiver.ports.queue import WorkerReport
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache

WORKERS = "workers"
"""The request. Only workers answer it. Without a worker, the server itself reports that at once."""

REPORT_TTL = timedelta(seconds=2)
"""Many web processes may ask. A silent region is not waited for once for each of them."""

_decode = msgspec.json.Decoder(WorkerReport).decode


class Reporter:
    """Reports on one worker."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._last: BoundedCache[None, bytes] = BoundedCache(ttl=REPORT_TTL, max_bytes=MEGABYTE)

    async def answer(self) -> bytes:
        """Return this worker's report, encoded."""
        encoded = self._last.get(None)
        if encoded is None:
            encoded = msgspec.json.encode(await self._report())
            self._last.put(None, encoded)
        return encoded

    async def _report(self) -> WorkerReport:
        answers = await self._storage.check_writable()
        regions = {region: error.reason if error else None for region, error in answers.items()}
        return WorkerReport(name=self._name, regions=regions)


async def request_reports(requests: FleetRequests) -> Sequence[WorkerReport]:
    """Return the report of each worker that answers.

    Raises:
        EngineUnavailable: The workers cannot be asked.
    """
    return [_parse(answer) for answer in await requests.send(WORKERS)]


def _parse(answer: bytes) -> WorkerReport:
    """Return the report in *answer*. An unreadable one still proves that a worker runs."""
    try:
        return _decode(answer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return WorkerReport(name="unreadable", regions={})
