"""What is told of answered requests: a measure of each, and a line of each or of many."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeAlias

from starlette.types import Scope

from archiver.telemetry import METRICS, log, observe_many, request_bucket
from archiver.web.clients import Clients
from archiver.web.exchange import CLIENT_LEFT, Exchange

ARCHIVE_ROUTES = frozenset({"archive", "file", "checksum", "digest"})
"""Those that lead to an archive, and are counted by what came of it."""

MEASURE_EVERY_S = 1.0
"""Metrics of hits are that old at most. Each on its own they would cost a tenth of the answer."""

QUIET_ROUTES = frozenset({"version", "heartbeat", "lbheartbeat", "metrics"})
"""Asked by machines, every few seconds."""

HELD = "held"
"""The outcome of a client that was sent here again: a step of one request, told as such."""

WAITED = "waited"
"""The outcome of a client that waited for its hit. Thousands may at a time, for one archive: lines
would cost more than all the rest, while the last of them wait on."""

COUNTED = frozenset({"hit", WAITED, "joined"})
"""Outcomes that a crowd has."""

PATH_LOGGED_CHARS = 1000


class Ledger:
    """Writes a line for each request, but for those of crowds: of these, one line per *interval*.

    With an *interval* of 0 they have lines of their own, too, which cost more than the answers.
    """

    def __init__(self, *, interval: timedelta, clients: Clients) -> None:
        self._clients = clients
        self._interval_s = interval.total_seconds()
        self._measured: dict[_Kind, _Sum] = defaultdict(_Sum)
        self._told: Counter[tuple[str, str]] = Counter()
        self._adds_up = COUNTED if self._interval_s else frozenset()

    def enter(self, exchange: Exchange, scope: Scope, *, route: str, duration_s: float) -> None:
        status = exchange.status or CLIENT_LEFT
        if exchange.outcome in self._adds_up:
            bucket = request_bucket(duration_s)
            kind = (route, exchange.source, scope["method"], status, exchange.outcome, bucket)
            measured = self._measured[kind]
            measured.requests += 1
            measured.seconds += duration_s
            return
        method = scope["method"] if scope["method"] in {"GET", "HEAD"} else "other"
        _duration(route, method, status).observe(duration_s)
        if route in ARCHIVE_ROUTES:
            _requests(exchange.source, exchange.outcome).inc()
        quiet = route in QUIET_ROUTES or exchange.outcome == HELD
        tell = log.debug if quiet else log.info
        tell(
            "request.finished",
            method=method,
            path=_printable(scope["raw_path"]),
            route=route,
            code=status,
            outcome=exchange.outcome,
            duration_s=round(duration_s, 6),
            client=self._clients.address(scope) or None,
            request_id=exchange.request_id,
        )

    async def keep(self) -> None:
        """Measure what is added up, and tell of it now and then; once more when cancelled."""
        tell_at = time.monotonic() + self._interval_s
        try:
            while True:
                await asyncio.sleep(MEASURE_EVERY_S)
                self._measure()
                if time.monotonic() >= tell_at:
                    self._tell()
                    tell_at += self._interval_s
        finally:
            self._measure()
            self._tell()

    def _measure(self) -> None:
        for (route, source, method, status, outcome, bucket), measured in self._measured.items():
            observe_many(
                _duration(route, method, status),
                bucket=bucket,
                times=measured.requests,
                total=measured.seconds,
            )
            _requests(source, outcome).inc(measured.requests)
            self._told[source, outcome] += measured.requests
        self._measured.clear()

    def _tell(self) -> None:
        for (source, outcome), requests in self._told.items():
            log.info("requests.finished", source=source, outcome=outcome, requests=requests)
        self._told.clear()


_Kind: TypeAlias = tuple[str, str, str, int, str, int]
"""The last is a bucket: what is slow must not get lost in a mean."""


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    seconds: float = 0.0


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
