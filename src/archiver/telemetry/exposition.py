"""The metrics of this process, or of all processes of a run, in Prometheus's format."""

import os
import re
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
)
from prometheus_client.multiprocess import MultiProcessCollector

from archiver.telemetry.metrics import REQUEST_SECONDS

METRICS_TYPE = CONTENT_TYPE_LATEST

_LIVE_GAUGE = re.compile(r"gauge_live\w*_(\d+)\.db")


def exposition() -> bytes:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types
    return generate_latest(registry)


def request_bucket(seconds: float) -> int:
    """Return the index of the bucket of ``METRICS.http_requests`` that counts this duration."""
    return bisect_left(REQUEST_SECONDS, seconds)


def observe_many(histogram: Any, *, bucket: int, times: int, total: float) -> None:  # noqa: ANN401 - a child of one
    """Observe *times* values of one *bucket* at once, with the sum *total*.

    prometheus_client has no public function for it; a test compares the result with single ones.
    """
    histogram._sum.inc(total)  # noqa: SLF001
    histogram._buckets[bucket].inc(times)  # noqa: SLF001


def forget_dead_processes(folder: Path) -> None:
    """Remove processes that have ended from the gauges of what runs now.

    *folder* is PROMETHEUS_MULTIPROC_DIR, which the processes of one machine share.
    """
    for path in folder.glob("gauge_live*.db"):
        if (match := _LIVE_GAUGE.fullmatch(path.name)) and not _is_alive(int(match[1])):
            multiprocess.mark_process_dead(int(match[1]), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
