"""The one log line and the metrics of an attempt."""

import logging
import time
from datetime import timedelta

from archiver.errors import ArchiverError
from archiver.ports.queue import Lease
from archiver.telemetry import METRICS, describe, log

LEVELS = {"retried": logging.WARNING, "failed": logging.ERROR, "lost": logging.WARNING}


class AttemptLog:
    """Measures an attempt from now on, and logs and counts its outcome."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._began = time.monotonic()

    def write(
        self,
        outcome: str,
        error: ArchiverError | None = None,
        *,
        level: int | None = None,
        **fields: object,
    ) -> None:
        source = self._lease.archive.source
        duration_s = time.monotonic() - self._began
        METRICS.attempts.labels(source=source, outcome=outcome).inc()
        METRICS.attempt_duration.labels(source=source, outcome=outcome).observe(duration_s)
        if error:
            fields |= {**error.log_fields, "reason": error.message, "cause": describe(error)}
        log.log(
            level or LEVELS.get(outcome, logging.INFO),
            f"task.{outcome}",
            key=self._lease.archive.key,
            attempt=self._lease.attempt,
            duration_s=round(duration_s, 3),
            **fields,
        )

    def write_waiting(self, error: ArchiverError, *, first: bool, after: timedelta) -> None:
        """Log that the task waits for the end of an outage, as a warning only the *first* time."""
        level = logging.WARNING if first else logging.INFO
        self.write("waiting", error, level=level, wait_s=round(after.total_seconds(), 3))
