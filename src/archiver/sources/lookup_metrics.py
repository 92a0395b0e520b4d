"""Counts the lookups at hosts by their outcome."""

from collections.abc import Iterator
from contextlib import contextmanager

from archiver.errors import ArchiverError
from archiver.telemetry import METRICS


@contextmanager
def counted_lookup(source: str) -> Iterator[None]:
    """Count the block as a lookup at *source*, by the code of its error."""
    try:
        yield
    except ArchiverError as exc:
        METRICS.resolves.labels(source=source, outcome=exc.code).inc()
        raise
    METRICS.resolves.labels(source=source, outcome="ok").inc()
