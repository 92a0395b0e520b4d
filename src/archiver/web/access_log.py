"""The access log: a metric for each request, and a line for each or one for many."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeAlias

from archiver.access.tokens import hide_tokens
from archiver.telemetry import METRICS, log, observe_many, request_bucket
from archiver.web.reply import CLIENT_LEFT_STATUS, HELD, HIT, JOINED, WAITED
from archiver.web.request_context import RequestContext

ARCHIVE_ROUTES = frozenset({"archive", "file", "checksum", "digest"})
"""Routes to archives. Their requests are also counted by source and outcome."""

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
"""The methods of the route table. Clients may invent others, which must not label a metric."""

MEASURE_INTERVAL_S = 1.0
"""How often the metrics of hits are updated. Updating them for each hit would take a tenth of the
time of a hit."""

QUIET_ROUTES = frozenset({"version", "heartbeat", "lbheartbeat", "metrics"})
"""Machines request these every few seconds; their lines have the level debug."""

CROWD_OUTCOMES = frozenset({HIT, WAITED, JOINED})
"""Outcomes that thousands of clients may have at once. Their lines would cost more than the
responses, while the last clients are still waiting."""

PATH_LOGGED_CHARS = 1000

REFUSED = range(400, CLIENT_LEFT_STATUS)
"""The statuses of requests that are the client's fault."""

REFUSALS_LOGGED = 20
"""Their lines per client and interval. A client could otherwise fill the disk with them."""

REFUSED_CLIENTS_MAX = 10_000
"""Clients whose refusals are counted at a time: at most some 2 MB."""


class AccessLog:
    """Logs a line per request; for crowds of hits, and many refusals, one line per *interval*.

    With an *interval* of 0 each hit has its own line, which costs more than its response.
    """

    def __init__(self, *, interval: timedelta) -> None:
        self._interval_s = interval.total_seconds()
        self._sums: dict[_Kind, _Sum] = defaultdict(_Sum)
        self._unlogged: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._summed = CROWD_OUTCOMES if self._interval_s else frozenset()

    def record(self, context: RequestContext, *, duration_s: float) -> None:
        """Measure and log a request that has been answered, or whose client has left."""
        status, outcome = context.status or CLIENT_LEFT_STATUS, context.outcome
        if outcome in self._summed:
            bucket = request_bucket(duration_s)
            kind = (context.route, context.source, context.method, status, outcome, bucket)
            total = self._sums[kind]
            total.requests += 1
            total.seconds += duration_s
            return
        method = context.method if context.method in KNOWN_METHODS else "other"
        _duration(context.route, method, status).observe(duration_s)
        if context.route in ARCHIVE_ROUTES:
            _requests(context.source, outcome).inc()
        if status in REFUSED and self._interval_s and self._is_flood(context):
            self._unlogged[context.source, outcome] += 1
            return
        quiet = context.route in QUIET_ROUTES or outcome == HELD
        (log.debug if quiet else log.info)(
            "request.finished",
            method=method,
            path=printable(context.raw_path),
            route=context.route,
            code=status,
            outcome=outcome,
            duration_s=round(duration_s, 6),
            client=context.client.address or None,
            request_id=context.request_id,
            **({"principal": context.principal} if context.principal else {}),
            **({"refused": context.refusal.log_reason} if context.refusal else {}),
        )

    def _is_flood(self, context: RequestContext) -> bool:
        """Count a refusal. Return whether its client had more than enough in this interval."""
        client = context.client.group
        if client not in self._refusals and len(self._refusals) >= REFUSED_CLIENTS_MAX:
            return True
        self._refusals[client] += 1
        return self._refusals[client] > REFUSALS_LOGGED

    async def flush_regularly(self) -> None:
        """Update the metrics and log the sums at their intervals, and once more when cancelled."""
        log_at = time.monotonic() + self._interval_s
        try:
            while True:
                await asyncio.sleep(MEASURE_INTERVAL_S)
                self._update_metrics()
                if time.monotonic() >= log_at:
                    self._log_sums()
                    log_at += self._interval_s
        finally:
            self._update_metrics()
            self._log_sums()

    def _update_metrics(self) -> None:
        for (route, source, method, status, outcome, bucket), total in self._sums.items():
            observe_many(
                _duration(route, method, status),
                bucket=bucket,
                times=total.requests,
                total=total.seconds,
            )
            _requests(source, outcome).inc(total.requests)
            self._unlogged[source, outcome] += total.requests
        self._sums.clear()

    def _log_sums(self) -> None:
        for (source, outcome), requests in self._unlogged.items():
            log.info("requests.finished", source=source, outcome=outcome, requests=requests)
        self._unlogged.clear()
        self._refusals.clear()


_Kind: TypeAlias = tuple[str, str, str, int, str, int]
"""Route, source, method, status, outcome, and the histogram's bucket: a mean would hide the slow
ones."""


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    seconds: float = 0.0


@cache
def _duration(route: str, method: str, code: int) -> Any:  # noqa: ANN401 - a child of a metric
    """Return the histogram of these labels. Looking it up costs more than observing."""
    return METRICS.http_requests.labels(route=route, method=method, code=code)


@cache
def _requests(source: str, outcome: str) -> Any:  # noqa: ANN401 - a child of a metric
    return METRICS.requests.labels(source=source, outcome=outcome)


def printable(raw_path: bytes) -> str:
    """Return the path as it was sent, on one line. The query is left out: it may hold secrets."""
    text = hide_tokens(raw_path[:PATH_LOGGED_CHARS].decode("ascii", "backslashreplace"))
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
