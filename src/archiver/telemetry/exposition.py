"""The values of all metrics in Prometheus's format."""

import os
import re
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
)
from prometheus_client.multiprocess import MultiProcessCollector

METRICS_TYPE = CONTENT_TYPE_LATEST

_LIVE_GAUGE = re.compile(r"gauge_live\w*_(\d+)\.db")


def exposition() -> bytes:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types
    return generate_latest(registry)


def forget_dead_processes(folder: Path) -> None:
    """Remove processes that have ended from the gauges of what runs now.

    *folder* is PROMETHEUS_MULTIPROC_DIR, which the processes of one machine share.
    """
    for path in folder.glob("gauge_live*.db"):
        if (match := _LIVE_GAUGE.fullmatch(path.name)) and not _is_alive(int(match[1])):
            multiprocess.mark_process_dead(int(match[1]), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
