"""Spans of what a process does, if it traces. Otherwise, nothing is recorded.

``open_telemetry`` records them. It is imported only if the environment turns tracing on, because
its libraries are an extra.
"""

import re
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from enum import Enum, StrEnum, auto
from types import TracebackType
from typing import Protocol, Self, TypeAlias

Value: TypeAlias = str | int | float | bool | Sequence[str]

TRACEPARENT = "traceparent"
"""The header that carries the context of a span, in HTTP and in NATS: W3C Trace Context."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class SpanName(StrEnum):
    """Every span: docs/how-to/trace.md describes them."""

    REQUEST = "archiver.request"
    LOOKUP = "archiver.lookup"
    TASK = "archiver.task"
    ATTEMPT = "archiver.attempt"
    FETCH = "archiver.fetch"
    READ = "archiver.read"
    CONVERT = "archiver.convert"
    VERIFY = "archiver.verify"
    UPLOAD = "archiver.upload"
    COMMIT = "archiver.commit"
    COPY = "archiver.copy"


class Kind(Enum):
    INTERNAL = auto()
    SERVER = auto()
    CLIENT = auto()
    PRODUCER = auto()
    CONSUMER = auto()


class Span:
    """A measured piece of work. A block ends it, and an exception that leaves the block fails it.

    This one records nothing.
    """

    @property
    def traceparent(self) -> str:
        """The name of the span, for other processes; empty if nothing is recorded."""
        return ""

    @property
    def trace_id(self) -> str:
        return ""

    @property
    def is_recorded(self) -> bool:
        """Whether the span will be sent. If not, its fields need not be computed."""
        return False

    def set(self, **fields: Value) -> None:
        """Add fields, with the names that they have in the log."""

    def set_standard(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes that OpenTelemetry has names for."""

    def link(self, traceparent: str) -> None:
        """Link another span to this one, unless *traceparent* names none."""

    def fail(self, code: str) -> None:
        """Mark the work as failed. The span gets no text of an error, which may hold secrets."""

    def end(self) -> None:
        """End the span, unless it has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc:
            self.fail(code_of(exc))
        self.end()


class Recorder(Protocol):
    """Begins spans, and knows the one whose block runs."""

    def begin(
        self,
        name: SpanName,
        *,
        kind: Kind,
        parent: str,
        link: str,
        attributes: Mapping[str, Value],
        is_parent: bool,
    ) -> Span: ...

    def current(self) -> Span: ...


NOTHING = Span()

_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Record the spans of this process with *recorder* from now on; with None, no longer."""
    global _recorder  # noqa: PLW0603 - one for the process, as the log and the metrics
    _recorder = recorder


def is_on() -> bool:
    return _recorder is not None


def span(
    name: SpanName,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: str = "",
    link: str = "",
    **fields: Value,
) -> Span:
    """Return a span that has begun, for a block. Spans that begin in the block are its children.

    *parent* and *link* are traceparents. Without a valid *parent*, it is the current span.
    """
    if _recorder is None:
        return NOTHING
    return _recorder.begin(
        name, kind=kind, parent=parent, link=link, attributes=prefixed(fields), is_parent=True
    )


def stage(name: SpanName, *, kind: Kind = Kind.INTERNAL, **fields: Value) -> Span:
    """Return a span as ``span``, without children: stages of a build run at the same time."""
    if _recorder is None:
        return NOTHING
    return _recorder.begin(
        name, kind=kind, parent="", link="", attributes=prefixed(fields), is_parent=False
    )


def current_traceparent() -> str:
    """Return the name of the span whose block runs, for other processes; empty without one."""
    return _recorder.current().traceparent if _recorder else ""


def current_trace_id() -> str:
    return _recorder.current().trace_id if _recorder else ""


def traceparent_in(headers: Mapping[str, str] | None) -> str:
    """Return the traceparent among *headers*, or an empty text if there is no valid one."""
    value = (headers or {}).get(TRACEPARENT, "")
    return value if _TRACEPARENT.fullmatch(value) else ""


def prefixed(fields: Mapping[str, Value]) -> dict[str, Value]:
    """Return *fields* under the names of attributes."""
    return {f"archiver.{name}": value for name, value in fields.items()}


def code_of(exc: BaseException) -> str:
    """Return the code of an error of Archiver, and the type of any other exception."""
    if isinstance(exc, CancelledError | GeneratorExit):
        return "cancelled"
    code = getattr(exc, "code", None)
    return code if isinstance(code, str) else type(exc).__name__


def measured(chunks: AsyncGenerator[bytes, None], measure: Span) -> AsyncGenerator[bytes, None]:
    """Return *chunks*. With them ends the span *measure*, which gets their size."""
    return chunks if measure is NOTHING else _measured(chunks, measure)


async def _measured(
    chunks: AsyncGenerator[bytes, None], measure: Span
) -> AsyncGenerator[bytes, None]:
    size_bytes = 0
    with measure:
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    yield chunk
        finally:
            measure.set(size_bytes=size_bytes)
