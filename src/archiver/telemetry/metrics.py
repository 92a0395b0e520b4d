"""The table of all metrics."""

from prometheus_client import Counter, Gauge, Histogram

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """All metrics. No label grows with use: no key, no repo, no rev."""

    def __init__(self) -> None:
        self.http_requests = Histogram(
            "archiver_http_request_duration_seconds",
            "Time to respond to a request.",
            ("route", "method", "code"),
            buckets=REQUEST_SECONDS,
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
            "archiver_event_streams",
            "Event streams open now.",
            multiprocess_mode="livesum",
        )
        self.resolves = Counter(
            "archiver_resolves_total",
            "Lookups of a rev or a node at a source, by outcome: ok, or an error code.",
            ("source", "outcome"),
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
            "handed_back, lost.",
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
            "Attempts that failed because of the source or the bytes it sent, by error code.",
            ("source", "code"),
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
        self.unreadable = Counter(
            "archiver_unreadable_values_total",
            "Stored values ignored because they are malformed, by place: "
            "manifests, states, index, revs, digests, repairs, tasks, feed.",
            ("place",),
        )
        self.build_info = Gauge(
            "archiver_build_info",
            "Always 1, labelled with the version.",
            ("version",),
            multiprocess_mode="livemax",
        )


METRICS = Metrics()
