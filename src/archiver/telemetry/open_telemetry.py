"""Records spans with OpenTelemetry, and sends them from a thread.

Only this module and ``span_queue`` import its libraries.
"""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceState,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as LibrarySpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from archiver.telemetry.collector import CollectorSession
from archiver.telemetry.span_queue import ReportingExporter, SpanQueue
from archiver.telemetry.tracing import (
    TRACEPARENT,
    Kind,
    Span,
    SpanName,
    Value,
    prefixed,
)
from archiver.telemetry.tracing_variables import queue_size

FLUSH_S = 1.5
"""How long a process that ends waits for the collector. granian allows four seconds for all."""

_KINDS = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.PRODUCER: SpanKind.PRODUCER,
    Kind.CONSUMER: SpanKind.CONSUMER,
}

_PROPAGATOR = TraceContextTextMapPropagator()

ContextToken: TypeAlias = Token[Context]


class RecordedSpan(Span):
    """A span of the library. Its block makes it the current one if it *is_parent*."""

    def __init__(self, span: LibrarySpan, *, is_parent: bool) -> None:
        self._span = span
        self._is_parent = is_parent
        self._token: ContextToken | None = None

    @property
    def trace_id(self) -> str:
        context = self._span.get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else ""

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        if not context.is_valid:
            return ""
        span_id = format_span_id(context.span_id)
        return f"00-{self.trace_id}-{span_id}-{context.trace_flags:02x}"

    @property
    def is_recorded(self) -> bool:
        return self._span.is_recording()

    def set(self, **fields: Value) -> None:
        self._span.set_attributes(prefixed(fields))

    def set_standard(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def link(self, traceparent: str) -> None:
        if linked := _parse(traceparent):
            self._span.add_link(linked)

    def fail(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        if self._span.is_recording():  # the library warns if a span ends twice
            self._span.end()

    def __enter__(self) -> Self:
        if self._is_parent:
            self._token = contexts.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token:
            contexts.detach(self._token)
        super().__exit__(kind, exc, traceback)


class OpenTelemetryRecorder:
    """Implements ``tracing.Recorder``."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("archiver")

    def begin(
        self,
        name: SpanName,
        *,
        kind: Kind,
        parent: str,
        link: str,
        attributes: Mapping[str, Value],
        is_parent: bool,
    ) -> Span:
        caller = _parse(parent) if parent else None
        linked = _parse(link) if link else None
        span = self._tracer.start_span(
            name,
            context=_context_of(caller) if caller else None,
            kind=_KINDS[kind],
            attributes=attributes,
            links=[Link(linked)] if linked else None,
            record_exception=False,
            set_status_on_exception=False,
        )
        return RecordedSpan(span, is_parent=is_parent)

    def current(self) -> Span:
        return RecordedSpan(get_current_span(), is_parent=False)


def _parse(traceparent: str) -> SpanContext | None:
    """Return what *traceparent* names. A ``tracestate`` may be any text, and is ignored."""
    extracted = _PROPAGATOR.extract({TRACEPARENT: traceparent}, context=Context())
    context = get_current_span(extracted).get_span_context()
    return context if context.is_valid else None


def _context_of(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


class LinkedSampler(Sampler):
    """Samples an attempt if the request that caused its task was sampled.

    An attempt begins a trace of its own. If chance decided, most of the traces of requests would
    lead to nothing. All other spans are left to the sampler that the environment names.
    """

    def __init__(self, own: Sampler) -> None:
        self._own = own

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        has_parent = get_current_span(parent_context).get_span_context().is_valid
        if links and not has_parent:
            sampled = any(link.context.trace_flags.sampled for link in links)
            decision = Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP
            return SamplingResult(decision, attributes)
        return self._own.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"LinkedSampler{{{self._own.get_description()}}}"


def open_recorder(
    exporters: Sequence[str], *, process: str, version: str
) -> tuple[OpenTelemetryRecorder, Callable[[], None]]:
    """Return a recorder that sends spans to *exporters*, and a function that ends it.

    Raises ValueError if a variable of the environment has no valid value.
    """
    # It repeats the texts of exceptions, for each batch.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    provider = TracerProvider(resource=_resource(process, version), shutdown_on_exit=False)
    if isinstance(provider.sampler, ParentBased | TraceIdRatioBased):
        provider.sampler = LinkedSampler(provider.sampler)
    opened = [_open(name) for name in exporters]
    for exporter in opened:
        provider.add_span_processor(SpanQueue(exporter))
    return OpenTelemetryRecorder(provider), partial(_close, provider, opened)


def _open(name: str) -> ReportingExporter:
    if name == "console":
        return ReportingExporter(ConsoleSpanExporter(), limit=queue_size(), status=lambda: None)
    session = CollectorSession()
    exporter = OTLPSpanExporter(session=session)
    return ReportingExporter(exporter, limit=queue_size(), status=lambda: session.status)


def _resource(process: str, version: str) -> Resource:
    """Return what describes this process. The environment has the last word."""
    own = Resource(
        {
            "service.name": "archiver",
            "service.version": version,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "archiver.process": process,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
        }
    )
    return own.merge(OTELResourceDetector().detect())


def _close(provider: TracerProvider, exporters: Sequence[ReportingExporter]) -> None:
    """Send what is left, for at most ``FLUSH_S``. The library would wait for half a minute."""
    closing = threading.Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(FLUSH_S)
    for exporter in exporters:
        exporter.shutdown()
