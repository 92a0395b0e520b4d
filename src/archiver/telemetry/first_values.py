"""Counters that begin at 0.

A series with labels exists from its first event on, so Prometheus sees no increase in that event.
For the rare events that alerts are about, the first one must count.
"""

from collections.abc import Iterable

from archiver.telemetry.metrics import METRICS

PLACES = (
    *("manifests", "tombstones", "states", "index", "revs", "digests", "repairs", "tasks", "feed"),
)


def begin_web_at_zero(sources: Iterable[str]) -> None:
    """Create the series of a web process that alerts watch."""
    _begin_at_zero()
    METRICS.refusals.labels(code="queue_full")
    for source in sources:
        METRICS.requests.labels(source=source, outcome="too_many_waiters")


def begin_worker_at_zero(sources: Iterable[str], suffixes: Iterable[str]) -> None:
    """Create the series of a worker that alerts watch."""
    _begin_at_zero()
    METRICS.mirror_removals.labels(reason="damaged")
    for suffix in suffixes:
        for outcome in ("lost", "failed"):
            METRICS.conversions.labels(suffix=suffix, outcome=outcome)
    for source in sources:
        for outcome in ("succeeded", "failed", "lost", "waiting"):
            METRICS.attempts.labels(source=source, outcome=outcome)
        for code in ("bytes_changed", "unproven_archive"):
            METRICS.source_errors.labels(source=source, code=code)


def _begin_at_zero() -> None:
    METRICS.checks.labels(outcome="gone")
    for place in PLACES:
        METRICS.unreadable.labels(place=place)
