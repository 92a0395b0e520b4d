"""The log: its format, and what must never appear in it.

The texts of libraries and of exceptions are left out, because they may quote addresses and
credentials.
"""

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
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from archiver.telemetry.tracing import current_trace_id

log: structlog.stdlib.BoundLogger = structlog.get_logger("archiver")


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"
    MOZLOG = "mozlog"


_SIGNATURE = re.compile(r"X-Amz-[A-Za-z-]{1,64}=[^&\s\"'<>]*", re.IGNORECASE)
"""The name is bounded to keep the search linear in a text with many ``X-Amz-``."""


def _hide_signatures(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove the signatures of presigned URLs from every field, as a last resort."""
    for name, value in event.items():
        if isinstance(value, str) and "x-amz-" in value.lower():
            event[name] = _SIGNATURE.sub("X-Amz-hidden", value)
    return event


def _describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Log types and traceback of an exception, not its text, which may hold secrets."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    exc = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(exc, BaseException):
        event["exception"] = describe(exc)
        event["traceback"] = "".join(traceback.format_tb(exc.__traceback__)).rstrip()
    return event


def describe(exc: BaseException | None) -> str:
    """Return the types of *exc* and of its causes, outermost first: ``A < B < C``."""
    names, seen = [], set[int]()
    while exc is not None and id(exc) not in seen:  # causes may form a circle
        seen.add(id(exc))
        names.append(type(exc).__name__)
        exc = exc.__cause__ or exc.__context__
    return " < ".join(names)


def _add_trace_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if trace_id := current_trace_id():
        event["trace_id"] = trace_id
    return event


_SEVERITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def _render_mozlog(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
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


def _add_nanoseconds(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = time.time_ns()
    return event


def set_up_logging(log_format: LogFormat, *, level: str, process: str) -> None:
    """Write the logs of Archiver and of its libraries to standard error, one line per event."""
    mozlog = log_format is LogFormat.MOZLOG
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_id,
        *([] if log_format is LogFormat.CONSOLE else [structlog.stdlib.add_logger_name]),
        structlog.stdlib.add_log_level,
        _add_nanoseconds if mozlog else structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
        _hide_signatures,
        _add_origin(process, None if mozlog else socket.gethostname()),  # mozlog has "Hostname"
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_LibraryFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(("library", "place")), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_escape_unprintable] if log_format is LogFormat.CONSOLE else []),
                _choose_renderer(log_format),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("archiver").setLevel(level.upper())


def _escape_unprintable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters: paths and names come from clients and hosts."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(
                char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in value
            )
    return event


def _add_origin(process: str, host: str | None) -> Processor:
    """Return a processor that adds the process and the machine to every line."""

    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        if host:
            event.setdefault("host", host)
        return event

    return add


def _choose_renderer(log_format: LogFormat) -> Callable[[WrappedLogger, str, EventDict], Any]:
    match log_format:
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer()
        case LogFormat.MOZLOG:
            return _render_mozlog


_CONNECTION_ERRNOS = {None, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""Plain OSErrors of failed connections. asyncio merges several failures into one without errno."""


class _LibraryFilter(logging.Filter):
    """Replaces the text of a library's log record by its place in the library's code.

    Drops asyncio's reports of failed connections, because the code that connects reports them too.
    Other reports stay: for example, nothing else says that a process has too many open files.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "archiver":
            return True
        exc = record.exc_info[1] if record.exc_info else None
        if record.name == "asyncio" and (_is_connection_error(exc) or _is_eof_warning(record)):
            return False
        record.msg, record.args = "library.spoke", None
        record.library, record.place = record.name, f"{record.module}:{record.lineno}"
        record.exc_text = record.stack_info = None
        return True


def _is_connection_error(exc: BaseException | None) -> bool:
    if isinstance(exc, (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror)):
        return True
    return isinstance(exc, OSError) and exc.errno in _CONNECTION_ERRNOS


def _is_eof_warning(record: logging.LogRecord) -> bool:
    """Return whether this is asyncio's warning at the end of every TLS connection of nats-py.

    Bug: https://github.com/nats-io/nats.py/issues/574
    """
    return isinstance(record.msg, str) and record.msg.startswith("returning true from eof_received")
