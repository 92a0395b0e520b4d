"""The table of all metrics."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """All metrics. No label grows with use: no key, no repo, no rev."""

    http_requests = Histogram(
        "archiver_http_request_duration_seconds",
        "Time to respond to a request.",
        ("route", "method", "code"),
        buckets=_REQUEST_SECONDS,
    )
    requests = Counter(
        "archiver_requests_total",
        "Archive requests by outcome: hit, waited (a hit after a wait), held (redirected to "
        "itself), sent_to_host, miss, joined, absent, client_left, or an error code.",
        ("source", "outcome"),
    )
    waiters = Gauge(
        "archiver_waiters",
        "Requests held open now, waiting for an archive or a change of status.",
        multiprocess_mode="livesum",
    )
    event_streams = Gauge(
        "archiver_event_streams", "Event streams open now.", multiprocess_mode="livesum"
    )
    connections_closed = Counter(
        "archiver_connections_closed_total",
        "Connections closed because their client had more than `server.connections_per_client` "
        "allows.",
    )
    resolves = Counter(
        "archiver_resolves_total",
        "Lookups of a rev or a node at a source, by outcome: ok, or an error code.",
        ("source", "outcome"),
    )
    refusals = Counter(
        "archiver_refusals_total",
        "Lookups and tasks that a limit did not allow, by error code.",
        ("code",),
    )
    prewarmed = Counter(
        "archiver_prewarm_requests_total",
        "Archives to build before clients request them, by origin: batch, hook or poll; and by "
        "outcome: hit, created, joined or refused.",
        ("origin", "outcome"),
    )
    hook_deliveries = Counter(
        "archiver_hook_deliveries_total",
        "Deliveries of webhooks, by hook and outcome: accepted, ignored, refused or failed.",
        ("hook", "outcome"),
    )
    index_lookups = Counter(
        "archiver_index_lookups_total",
        "Lookups of an archive's copies by level: memory, index, buckets, absent.",
        ("level",),
    )
    checks = Counter(
        "archiver_checks_total",
        "Index entries compared with the buckets, by outcome: sound, gone, unanswered.",
        ("outcome",),
    )
    attempts = Counter(
        "archiver_attempts_total",
        "Attempts by outcome: succeeded, retried, waiting (for the end of an outage), failed, "
        "absent (the host does not have it), handed_back, lost.",
        ("source", "outcome"),
    )
    attempt_duration = Histogram(
        "archiver_attempt_duration_seconds",
        "Duration of an attempt, from claim to end.",
        ("source", "outcome"),
        buckets=_ATTEMPT_SECONDS,
    )
    attempts_running = Gauge(
        "archiver_attempts_running",
        "Attempts running now.",
        ("source",),
        multiprocess_mode="livesum",
    )
    attempts_in_phase = Gauge(
        "archiver_attempts_in_phase",
        "Attempts running now, by the step that they are at: connecting, fetching, converting, "
        "committing, copying.",
        ("phase",),
        multiprocess_mode="livesum",
    )
    conversions = Counter(
        "archiver_conversions_total",
        "Conversions to a format by outcome: succeeded, refused (the input cannot be "
        "converted, lacks the subdir, or has no room), lost (the process was killed), failed (a "
        "bug), aborted (the attempt ended for another reason).",
        ("suffix", "outcome"),
    )
    conversions_running = Gauge(
        "archiver_conversions_running",
        "Conversions running now, each of them a process.",
        multiprocess_mode="livesum",
    )
    source_bytes = Counter(
        "archiver_source_bytes_total", "Archive bytes received from a source.", ("source",)
    )
    source_errors = Counter(
        "archiver_source_errors_total",
        "Attempts that failed because of the source or the bytes it sent, by error code. An "
        "error in a submodule counts for the submodule's source.",
        ("source", "code"),
    )
    breaker_state = Gauge(
        "archiver_breaker_state",
        "State of the circuit breaker of a source or a region: 0 closed, 1 half-open, 2 open.",
        ("kind", "name"),
        multiprocess_mode="livemax",
    )
    breaker_openings = Counter(
        "archiver_breaker_openings_total",
        "Times that a closed circuit breaker was opened, counted by the process that did it.",
        ("kind", "name"),
    )
    mirror_uses = Counter(
        "archiver_mirror_uses_total",
        "Uses of a git mirror by outcome: hit (it had the commit), fetched (only what "
        "changed), cold (it was empty), missed (the host sent nothing), failed (git "
        "failed).",
        ("source", "outcome"),
    )
    mirror_fetched_bytes = Counter(
        "archiver_mirror_fetched_bytes_total",
        "Bytes of packs received from a source.",
        ("source",),
    )
    mirror_repacks = Counter(
        "archiver_mirror_repacks_total", "Mirrors whose small packs were merged."
    )
    mirror_removals = Counter(
        "archiver_mirror_removals_total",
        "Mirrors removed by reason: evicted (for room), outgrown (it had three times its first "
        "size), damaged (git failed).",
        ("reason",),
    )
    mirror_bytes = Gauge(
        "archiver_mirror_bytes",
        "Size of all mirrors of this machine when it was last measured.",
        multiprocess_mode="livemax",
    )
    lfs_fetched_bytes = Counter(
        "archiver_lfs_fetched_bytes_total",
        "Bytes of Git LFS files received from a source.",
        ("source",),
    )
    lfs_uses = Counter(
        "archiver_lfs_uses_total",
        "Uses of Git LFS files by outcome: hit (a worker had the file), fetched.",
        ("source", "outcome"),
    )
    lfs_removals = Counter(
        "archiver_lfs_removals_total",
        "Git LFS files that a worker removed, by reason: evicted (for room), damaged (other "
        "bytes than before).",
        ("reason",),
    )
    lfs_bytes = Gauge(
        "archiver_lfs_bytes",
        "Size of all Git LFS files of this machine when it was last measured.",
        multiprocess_mode="livemax",
    )
    uploads = Counter(
        "archiver_uploads_total",
        "Uploads to a region by outcome: succeeded (all bytes visible), failed, aborted.",
        ("region", "outcome"),
    )
    upload_bytes = Counter(
        "archiver_upload_bytes_total",
        "Archive bytes that a region has acknowledged.",
        ("region",),
    )
    repairs = Counter(
        "archiver_repairs_total",
        "Copies made from another region, by outcome: succeeded, failed.",
        ("region", "outcome"),
    )
    copies_lacking = Gauge(
        "archiver_copies_lacking",
        "Known archives of which a region has no copy, although another one has. "
        "Workers count them every `worker.repair_interval_s`.",
        ("region",),
        multiprocess_mode="livemax",
    )
    archives_stored = Gauge(
        "archiver_archives_stored",
        "Archives in a region, as counted by the last sweep.",
        ("region",),
        multiprocess_mode="livemax",
    )
    stored_bytes = Gauge(
        "archiver_stored_bytes",
        "Bytes of all archives in a region, as counted by the last sweep.",
        ("region",),
        multiprocess_mode="livemax",
    )
    sweep_removals = Counter(
        "archiver_sweep_removals_total",
        "Removals by a sweep, by kind: orphan (an object that no manifest names), expired (the "
        "bytes of an expired archive), unfinished "
        "(a multipart upload).",
        ("kind",),
    )
    sweep_removed_bytes = Counter(
        "archiver_sweep_removed_bytes_total",
        "Bytes of the objects that sweeps removed. Those of unfinished uploads are unknown.",
    )
    superseded = Counter(
        "archiver_superseded_archives_total",
        "Archives that were built again after they expired, with other bytes than before.",
        ("source",),
    )
    expired = Counter(
        "archiver_expired_archives_total",
        "Archives that expired, by reason: unused, budget.",
        ("source", "reason"),
    )
    expired_bytes = Counter(
        "archiver_expired_bytes_total",
        "Bytes of the objects of expired archives that were removed, in all regions together.",
    )
    gc_finished = Gauge(
        "archiver_gc_finished_timestamp_seconds",
        "Time at which this worker last ended a run of gc, in seconds since 1970; 0 before that.",
        multiprocess_mode="max",
    )
    sweep_finished = Gauge(
        "archiver_sweep_finished_timestamp_seconds",
        "Time at which a worker of the fleet last ended a sweep, in seconds since 1970, as far "
        "as this one knows; 0 if it knows of none.",
        multiprocess_mode="max",
    )
    engine_connected = Gauge(
        "archiver_engine_connected",
        "1 while the process is connected to NATS, else 0; of several processes with one "
        "address, 0 while one is not.",
        ("process",),
        multiprocess_mode="livemin",
    )
    engine_works = Gauge(
        "archiver_engine_works",
        "1 if the engine could store a task and hand it out when this process last tried, which it "
        "does every 30 s, else 0. A cluster without a majority of its servers cannot.",
        ("process",),
        multiprocess_mode="livemax",
    )
    workers = Gauge(
        "archiver_workers",
        "Workers of the fleet that answer, by state: active, draining. Each process asks every "
        "30 s.",
        ("state",),
        multiprocess_mode="livemax",
    )
    queue_tasks = Gauge(
        "archiver_queue_tasks",
        "Tasks in the queue by the lane that they are in (hi, mid, lo), or by why they wait "
        "outside of the lanes (parked, deferred), and by state: waiting, or begun. Each "
        "process counts every 30 s.",
        ("source", "lane", "state"),
        multiprocess_mode="livemax",
    )
    queue_oldest_age = Gauge(
        "archiver_queue_oldest_task_age_seconds",
        "Time since the oldest task that waits there, and has never begun, was created; 0 if "
        "none waits.",
        ("source", "lane"),
        multiprocess_mode="livemax",
    )
    region_reachable = Gauge(
        "archiver_region_reachable",
        "1 if the region answered this process when it last asked, which it does every 30 s, "
        "else 0.",
        ("region",),
        multiprocess_mode="livemax",
    )
    region_writable = Gauge(
        "archiver_region_writable",
        "1 if some worker of the fleet could write to the region when it was last asked, which "
        "each process does every 30 s, else 0. Unchanged while no worker answers.",
        ("region",),
        multiprocess_mode="livemax",
    )
    engine_fullness = Gauge(
        "archiver_engine_fullness",
        "Used part, 0 to 1, of the bytes or the entries that a place in the engine may have, "
        "whichever is larger: tasks, states, index, revs, digests, repairs, uses. Workers "
        "measure it every minute.",
        ("place",),
        multiprocess_mode="livemax",
    )
    unreadable = Counter(
        "archiver_unreadable_values_total",
        "Stored values ignored because they are malformed, by place: "
        "manifests, tombstones, states, index, revs, digests, repairs, tasks, feed.",
        ("place",),
    )
    access_unreadable = Gauge(
        "archiver_access_unreadable",
        "1 while a web process applies previous rules of access, because it cannot read the "
        "present ones; else 0.",
        multiprocess_mode="livemax",
    )
    build_info = Gauge(
        "archiver_build_info",
        "Always 1, labelled with the version.",
        ("version",),
        multiprocess_mode="livemax",
    )


METRICS = Metrics()


def all_metrics() -> Mapping[str, MetricWrapperBase]:
    """Return each metric by the name of its attribute."""
    found = vars(Metrics).items()
    return {name: each for name, each in found if isinstance(each, MetricWrapperBase)}


def request_bucket(seconds: float) -> int:
    """Return the index of the bucket of ``METRICS.http_requests`` that counts this duration."""
    return bisect_left(_REQUEST_SECONDS, seconds)


def observe_many(histogram: Any, *, bucket: int, times: int, total: float) -> None:  # noqa: ANN401 - a child of one
    """Observe *times* values of one *bucket* at once, with the sum *total*.

    prometheus_client has no public function for it; a test compares the result with single ones.
    """
    histogram._sum.inc(total)  # noqa: SLF001
    histogram._buckets[bucket].inc(times)  # noqa: SLF001
