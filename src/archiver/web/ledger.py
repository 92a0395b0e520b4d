"""What is told of answered requests: a measure of each, and a line of each or of many."""

import asyncio
from collections import Counter
from datetime import timedelta
from functools import cache
from typing import Any

from starlette.types import Scope

from archiver.telemetry import METRICS, log
from archiver.web.exchange import Exchange

ARCHIVE_ROUTE = "archive"

QUIET_ROUTES = frozenset({"version", "heartbeat", "lbheartbeat", "metrics"})
"""Asked by machines, every few seconds."""

CLIENT_LEFT = 499
"""nginx's number for a client that did not wait for the answer."""

PATH_LOGGED_CHARS = 1000


class Ledger:
    """Writes a line for each request, but for hits: of those, one line per source and *interval*.

    With an *interval* of 0 hits have lines of their own, too, which cost more than the answers.
    """

    def __init__(self, *, interval: timedelta) -> None:
        self._interval_s = interval.total_seconds()
        self._hits: Counter[str] = Counter()

    def enter(self, exchange: Exchange, scope: Scope, *, route: str, duration_s: float) -> None:
        method = scope["method"] if scope["method"] in {"GET", "HEAD"} else "other"
        status = exchange.status or CLIENT_LEFT
        _duration(route, method, status).observe(duration_s)
        if route == ARCHIVE_ROUTE:
            _requests(exchange.source, exchange.outcome).inc()
        if exchange.outcome == "hit" and self._interval_s:
            self._hits[exchange.source] += 1
            return
        tell = log.debug if route in QUIET_ROUTES else log.info
        tell(
            "request.finished",
            method=method,
            path=_printable(scope["raw_path"]),
            route=route,
            code=status,
            outcome=exchange.outcome,
            duration_s=round(duration_s, 6),
            client=scope["client"][0] if scope.get("client") else None,
            request_id=exchange.request_id,
        )

    async def keep(self) -> None:
        """Tell of hits now and then, until cancelled, and then once more."""
        try:
            while self._interval_s:
                await asyncio.sleep(self._interval_s)
                self._tell_hits()
        finally:
            self._tell_hits()

    def _tell_hits(self) -> None:
        for source, hits in self._hits.items():
            log.info("hits.finished", source=source, hits=hits, interval_s=self._interval_s)
        self._hits.clear()


@cache
def _duration(route: str, method: str, code: int) -> Any:  # noqa: ANN401 - a child of a metric
    """Return where to measure; looking up the labels costs more than the measuring."""
    return METRICS.http_requests.labels(route=route, method=method, code=code)


@cache
def _requests(source: str, outcome: str) -> Any:  # noqa: ANN401 - a child of a metric
    return METRICS.requests.labels(source=source, outcome=outcome)


def _printable(raw_path: bytes) -> str:
    """Return the path as it was sent, on one line. The query stays out: it may hold anything."""
    text = raw_path[:PATH_LOGGED_CHARS].decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
