"""What Archiver tells its operators: the set-up of the log, and the one table of metrics."""

import errno
import json
import logging
import os
import re
import socket
import ssl
import sys
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
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
from structlog.typing import EventDict, Processor, WrappedLogger

log: structlog.stdlib.BoundLogger = structlog.get_logger("archiver")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BUILD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Every metric there is. No label grows with use: no key, no repo, no rev."""

    def __init__(self) -> None:
        self.http_requests = Histogram(
            "archiver_http_request_duration_seconds",
            "Time to answer a request.",
            ("route", "method", "code"),
            buckets=_SECONDS,
        )
        self.requests = Counter(
            "archiver_requests_total",
            "Archive requests by outcome: hit, waited (a hit, at last), held (sent here again), "
            "sent_to_host, miss, joined, absent, client_left, or an error's code.",
            ("source", "outcome"),
        )
        self.waiters = Gauge(
            "archiver_waiters",
            "Requests that are held open now, until there is something to tell.",
            multiprocess_mode="livesum",
        )
        self.event_streams = Gauge(
            "archiver_event_streams",
            "Streams of events that are open now.",
            multiprocess_mode="livesum",
        )
        self.resolves = Counter(
            "archiver_resolves_total",
            "Questions to a source about a rev or a node, by outcome: ok, or an error's code.",
            ("source", "outcome"),
        )
        self.index_lookups = Counter(
            "archiver_index_lookups_total",
            "Where an archive's copies were found: memory, index, buckets, absent.",
            ("level",),
        )
        self.checks = Counter(
            "archiver_checks_total",
            "Entries of the index compared with the buckets, by outcome: sound, gone, unanswered.",
            ("outcome",),
        )
        self.attempts = Counter(
            "archiver_attempts_total",
            "Attempts by outcome: succeeded, retried, waiting (for an outage of ours), failed, "
            "handed_back, lost.",
            ("source", "outcome"),
        )
        self.attempt_duration = Histogram(
            "archiver_attempt_duration_seconds",
            "Time from claim to end of an attempt.",
            ("source", "outcome"),
            buckets=_BUILD_SECONDS,
        )
        self.attempts_running = Gauge(
            "archiver_attempts_running",
            "Attempts that are running now.",
            ("source",),
            multiprocess_mode="livesum",
        )
        self.source_bytes = Counter(
            "archiver_source_bytes_total", "Archive bytes received from a source.", ("source",)
        )
        self.source_errors = Counter(
            "archiver_source_errors_total",
            "Attempts that ended in an error of the source or its bytes, by code.",
            ("source", "code"),
        )
        self.uploads = Counter(
            "archiver_uploads_total",
            "Uploads to a region by outcome: succeeded (it shows all of it), failed, aborted.",
            ("region", "outcome"),
        )
        self.upload_bytes = Counter(
            "archiver_upload_bytes_total", "Archive bytes that a region said it took.", ("region",)
        )
        self.repairs = Counter(
            "archiver_repairs_total",
            "Copies made from another region, by outcome: succeeded, failed.",
            ("region", "outcome"),
        )
        self.unreadable = Counter(
            "archiver_unreadable_values_total",
            "Stored values that cannot be what they are stored as and were passed over, by place: "
            "manifests, states, index, revs, digests, repairs, tasks, feed.",
            ("place",),
        )
        self.build_info = Gauge(
            "archiver_build_info",
            "1, labelled with the version.",
            ("version",),
            multiprocess_mode="livemax",
        )


METRICS = Metrics()

METRICS_TYPE = CONTENT_TYPE_LATEST


def exposition() -> bytes:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has none
    return generate_latest(registry)


def request_bucket(seconds: float) -> int:
    """Return which bucket of ``METRICS.http_requests`` counts an answer that took so long."""
    return bisect_left(_SECONDS, seconds)


def observe_many(histogram: Any, *, bucket: int, times: int, total: float) -> None:  # noqa: ANN401 - a child of one
    """Observe so many *times* at once a value of *bucket*, which makes *total* in all.

    prometheus_client has no word for it, and its parts no stubs: a test compares the two.
    """
    histogram._sum.inc(total)  # noqa: SLF001
    histogram._buckets[bucket].inc(times)  # noqa: SLF001


_LIVE = re.compile(r"gauge_live\w*_(\d+)\.db")


def forget_dead(folder: Path) -> None:
    """Take processes that are gone out of the gauges that count what is going on now.

    *folder* is PROMETHEUS_MULTIPROC_DIR, where those of one machine add up their metrics.
    """
    for path in folder.glob("gauge_live*.db"):
        if (match := _LIVE.fullmatch(path.name)) and not _lives(int(match[1])):
            multiprocess.mark_process_dead(int(match[1]), str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"
    MOZLOG = "mozlog"


_SIGNATURE = re.compile(r"X-Amz-[A-Za-z-]{1,64}=[^&\s\"'<>]*", re.IGNORECASE)
"""The name is bounded, because each ``X-Amz-`` in a text is searched for an ``=`` of its own."""


def _hide_signatures(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take presigned URLs apart, whoever let one slip into a line."""
    for name, value in event.items():
        if isinstance(value, str) and "x-amz-" in value.lower():
            event[name] = _SIGNATURE.sub("X-Amz-hidden", value)
    return event


def _tell_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write where an exception came from, not what it says: texts of libraries hold secrets."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    exc = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(exc, BaseException):
        event["exception"] = describe(exc)
        event["traceback"] = "".join(traceback.format_tb(exc.__traceback__)).rstrip()
    return event


def describe(exc: BaseException | None) -> str:
    """Return the types of *exc* and of what caused it, outermost first: ``A < B < C``."""
    names = []
    while exc is not None:
        names.append(type(exc).__name__)
        exc = exc.__cause__ or exc.__context__
    return " < ".join(names)


_SEVERITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def _mozlog(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Render as mozlog 2.0 (https://wiki.mozilla.org/Firefox/Services/Logging)."""
    created = event.pop("timestamp")
    line = {
        "Timestamp": created,
        "Type": event.pop("event"),
        "Logger": event.pop("logger", "archiver"),
        "Hostname": socket.gethostname(),
        "EnvVersion": "2.0",
        "Severity": _SEVERITY[event.pop("level")],
        "Pid": os.getpid(),
        "Fields": event,
    }
    return json.dumps(line, default=str)


def _nanoseconds(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = time.time_ns()
    return event


def set_up_logging(log_format: LogFormat, *, level: str, process: str) -> None:
    """Send Archiver's log and that of its libraries to standard error, one line per event."""
    mozlog = log_format is LogFormat.MOZLOG
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        *([] if log_format is LogFormat.CONSOLE else [structlog.stdlib.add_logger_name]),
        structlog.stdlib.add_log_level,
        _nanoseconds if mozlog else structlog.processors.TimeStamper(fmt="iso", utc=True),
        _tell_exception,
        _hide_signatures,
        _named(process, None if mozlog else socket.gethostname()),  # mozlog has its own place
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_PlainWords())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(("library", "place")),
                *shared,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_escape] if log_format is LogFormat.CONSOLE else []),
                _renderer(log_format),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("archiver").setLevel(level.upper())


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what would do something to a terminal: paths and names come from clients and hosts."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(
                char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in value
            )
    return event


class _PlainWords(logging.Filter):
    """Takes the text out of what libraries log, which may quote addresses and credentials.

    It drops asyncio's reports of failed connections: the code that opened one reports it. Nothing
    else reports that a process has too many open files.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "archiver":
            return True
        exc = record.exc_info[1] if record.exc_info else None
        if record.name == "asyncio" and (_is_of_connection(exc) or _is_about_eof(record)):
            return False
        record.msg, record.args = "library.spoke", None
        record.library, record.place = record.name, f"{record.module}:{record.lineno}"
        record.exc_text = record.stack_info = None
        return True


_OF_CONNECTIONS = {None, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""Numbers of plain OSErrors; asyncio joins several failures in one without a number."""


def _is_of_connection(exc: BaseException | None) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror)):
        return True
    return isinstance(exc, OSError) and exc.errno in _OF_CONNECTIONS


def _is_about_eof(record: logging.LogRecord) -> bool:
    """Return whether it is what asyncio says whenever a connection with TLS ends."""
    return isinstance(record.msg, str) and record.msg.startswith("returning true from eof_received")


def _named(process: str, host: str | None) -> Processor:
    """Return what says which process of which machine a line is of."""

    def name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        if host:
            event.setdefault("host", host)
        return event

    return name


def _renderer(log_format: LogFormat) -> Callable[[WrappedLogger, str, EventDict], Any]:
    match log_format:
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer()
        case LogFormat.MOZLOG:
            return _mozlog
