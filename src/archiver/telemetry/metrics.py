"""The table of all metrics, and their values in Prometheus's format."""

import os
import re
from bisect import bisect_left
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.multiprocess import MultiProcessCollector

METRICS_TYPE = CONTENT_TYPE_LATEST

_LIVE_GAUGE = re.compile(r"gauge_live\w*_(\d+)\.db")

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """All metrics. No label grows with use: no key, no repo, no rev."""

    def __init__(self) -> None:
        self.http_requests = Histogram(
            "archiver_http_request_duration_seconds",
            "Time to respond to a request.",
            ("route", "method", "code"),
            buckets=_REQUEST_SECONDS,
        )
        self.requests = Counter(
            "archiver_requests_total",
            "Archive requests by outcome: hit, waited (a hit after a wait), held (redirected to "
            "itself), sent_to_host, miss, joined, absent, client_left, or an error code.",
            ("source", "outcome"),
        )
        self.waiters = Gauge(
            "archiver_waiters",
            "Requests held open now, waiting for an archive or a change of status.",
            multiprocess_mode="livesum",
        )
        self.event_streams = Gauge(
            "archiver_event_streams", "Event streams open now.", multiprocess_mode="livesum"
        )
        self.connections_closed = Counter(
            "archiver_connections_closed_total",
            "Connections closed because their client had more than `server.connections_per_client` "
            "allows.",
        )
        self.resolves = Counter(
            "archiver_resolves_total",
            "Lookups of a rev or a node at a source, by outcome: ok, or an error code.",
            ("source", "outcome"),
        )
        self.refusals = Counter(
            "archiver_refusals_total",
            "Lookups and tasks that a limit did not allow, by error code.",
            ("code",),
        )
        self.prewarmed = Counter(
            "archiver_prewarm_requests_total",
            "Archives to build before clients request them, by origin: batch, hook or poll; and by "
            "outcome: hit, created, joined or refused.",
            ("origin", "outcome"),
        )
        self.hook_deliveries = Counter(
            "archiver_hook_deliveries_total",
            "Deliveries of webhooks, by hook and outcome: accepted, ignored, refused or failed.",
            ("hook", "outcome"),
        )
        self.index_lookups = Counter(
            "archiver_index_lookups_total",
            "Lookups of an archive's copies by level: memory, index, buckets, absent.",
            ("level",),
        )
        self.checks = Counter(
            "archiver_checks_total",
            "Index entries compared with the buckets, by outcome: sound, gone, unanswered.",
            ("outcome",),
        )
        self.attempts = Counter(
            "archiver_attempts_total",
            "Attempts by outcome: succeeded, retried, waiting (for the end of an outage), failed, "
            "absent (the host does not have it), handed_back, lost.",
            ("source", "outcome"),
        )
        self.attempt_duration = Histogram(
            "archiver_attempt_duration_seconds",
            "Duration of an attempt, from claim to end.",
            ("source", "outcome"),
            buckets=_ATTEMPT_SECONDS,
        )
        self.attempts_running = Gauge(
            "archiver_attempts_running",
            "Attempts running now.",
            ("source",),
            multiprocess_mode="livesum",
        )
        self.source_bytes = Counter(
            "archiver_source_bytes_total", "Archive bytes received from a source.", ("source",)
        )
        self.source_errors = Counter(
            "archiver_source_errors_total",
            "Attempts that failed because of the source or the bytes it sent, by error code. An "
            "error in a submodule counts for the submodule's source.",
            ("source", "code"),
        )
        self.breaker_state = Gauge(
            "archiver_breaker_state",
            "State of the circuit breaker of a source or a region: 0 closed, 1 half-open, 2 open.",
            ("kind", "name"),
            multiprocess_mode="livemax",
        )
        self.breaker_openings = Counter(
            "archiver_breaker_openings_total",
            "Times that a closed circuit breaker was opened, counted by the process that did it.",
            ("kind", "name"),
        )
        self.mirror_uses = Counter(
            "archiver_mirror_uses_total",
            "Uses of a git mirror by outcome: hit (it had the commit), fetched (only what "
            "changed), cold (it was empty), missed (the host sent nothing), failed (git "
            "failed).",
            ("source", "outcome"),
        )
        self.mirror_fetched_bytes = Counter(
            "archiver_mirror_fetched_bytes_total",
            "Bytes of packs received from a source.",
            ("source",),
        )
        self.mirror_repacks = Counter(
            "archiver_mirror_repacks_total", "Mirrors whose small packs were merged."
        )
        self.mirror_removals = Counter(
            "archiver_mirror_removals_total",
            "Mirrors removed by reason: evicted (for room), outgrown (it had three times its first "
            "size), damaged (git failed).",
            ("reason",),
        )
        self.mirror_bytes = Gauge(
            "archiver_mirror_bytes",
            "Size of all mirrors of this machine when it was last measured.",
            multiprocess_mode="livemax",
        )
        self.lfs_fetched_bytes = Counter(
            "archiver_lfs_fetched_bytes_total",
            "Bytes of Git LFS files received from a source.",
            ("source",),
        )
        self.lfs_uses = Counter(
            "archiver_lfs_uses_total",
            "Uses of Git LFS files by outcome: hit (a worker had the file), fetched.",
            ("source", "outcome"),
        )
        self.lfs_removals = Counter(
            "archiver_lfs_removals_total",
            "Git LFS files that a worker removed, by reason: evicted (for room), damaged (other "
            "bytes than before).",
            ("reason",),
        )
        self.lfs_bytes = Gauge(
            "archiver_lfs_bytes",
            "Size of all Git LFS files of this machine when it was last measured.",
            multiprocess_mode="livemax",
        )
        self.uploads = Counter(
            "archiver_uploads_total",
            "Uploads to a region by outcome: succeeded (all bytes visible), failed, aborted.",
            ("region", "outcome"),
        )
        self.upload_bytes = Counter(
            "archiver_upload_bytes_total",
            "Archive bytes that a region has acknowledged.",
            ("region",),
        )
        self.repairs = Counter(
            "archiver_repairs_total",
            "Copies made from another region, by outcome: succeeded, failed.",
            ("region", "outcome"),
        )
        self.sweep_removals = Counter(
            "archiver_sweep_removals_total",
            "Removals by a sweep, by kind: orphan (an object that no manifest names), expired (the "
            "bytes of an expired archive), unfinished "
            "(a multipart upload).",
            ("kind",),
        )
        self.sweep_removed_bytes = Counter(
            "archiver_sweep_removed_bytes_total",
            "Bytes of the objects that sweeps removed. Those of unfinished uploads are unknown.",
        )
        self.superseded = Counter(
            "archiver_superseded_archives_total",
            "Archives that were built again after they expired, with other bytes than before.",
            ("source",),
        )
        self.expired = Counter(
            "archiver_expired_archives_total",
            "Archives that expired, by reason: unused, budget.",
            ("source", "reason"),
        )
        self.expired_bytes = Counter(
            "archiver_expired_bytes_total",
            "Bytes of the objects of expired archives that were removed, in all regions together.",
        )
        self.gc_finished = Gauge(
            "archiver_gc_finished_timestamp_seconds",
            "Time at which this worker last ended a run of gc, in seconds since 1970; 0 before "
            "that.",
            multiprocess_mode="max",
        )
        self.sweep_finished = Gauge(
            "archiver_sweep_finished_timestamp_seconds",
            "Time at which this worker last ended a sweep, in seconds since 1970; 0 before that.",
            multiprocess_mode="max",
        )
        self.engine_fullness = Gauge(
            "archiver_engine_fullness",
            "Used part, 0 to 1, of the bytes or the entries that a place in the engine may have, "
            "whichever is larger: tasks, states, index, revs, digests, repairs, uses. Workers "
            "measure it every minute.",
            ("place",),
            multiprocess_mode="livemax",
        )
        self.unreadable = Counter(
            "archiver_unreadable_values_total",
            "Stored values ignored because they are malformed, by place: "
            "manifests, tombstones, states, index, revs, digests, repairs, tasks, feed.",
            ("place",),
        )
        self.access_unreadable = Gauge(
            "archiver_access_unreadable",
            "1 while a web process applies previous rules of access, because it cannot read the "
            "present ones; else 0.",
            multiprocess_mode="livemax",
        )
        self.build_info = Gauge(
            "archiver_build_info",
            "Always 1, labelled with the version.",
            ("version",),
            multiprocess_mode="livemax",
        )


METRICS = Metrics()


def exposition() -> bytes:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types
    return generate_latest(registry)


def request_bucket(seconds: float) -> int:
    """Return the index of the bucket of ``METRICS.http_requests`` that counts this duration."""
    return bisect_left(_REQUEST_SECONDS, seconds)


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
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
