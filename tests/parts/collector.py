"""An OTLP collector: takes spans over HTTP, and keeps them decoded."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A span as the collector received it. ``text`` has all texts in it."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: Sequence[tuple[str, str]]
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    failed: bool
    text: str

    @property
    def place(self) -> tuple[str, str]:
        return self.trace_id, self.span_id

    @property
    def parent(self) -> tuple[str, str]:
        return self.trace_id, self.parent_id


@dataclass(slots=True)
class Collector:
    """Has the address ``url``. ``paths`` are those of all requests, ``spans`` all that they had."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    spans: list[Received] = field(default_factory=list)

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def requests(self, route: str = "") -> list[Received]:
        """Return the spans of all requests, or of those to one route."""
        spans = self.named("archiver.request")
        return [span for span in spans if route in {"", span.attributes.get("http.route")}]

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_received(span, resource) for span in scope.spans]


def _received(span: Span, resource: Mapping[str, Any]) -> Received:
    return Received(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        attributes=_values(span.attributes),
        resource=resource,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        text=repr(_texts(span, resource)),
    )


def _texts(span: Span, resource: Mapping[str, Any]) -> Sequence[object]:
    """Return all of a span that may hold a text."""
    return (
        (span.name, span.trace_state, span.status.message, _values(span.attributes), resource),
        *((link.trace_state, _values(link.attributes)) for link in span.links),
        *((event.name, _values(event.attributes)) for event in span.events),
    )


def _values(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:  # noqa: ANN401
    if value.WhichOneof("value") == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    return getattr(value, value.WhichOneof("value") or "string_value")


@dataclass(slots=True)
class DeadCollector:
    """Has the address ``url``, and counts the connections and the bytes that it sent."""

    url: str = ""
    connections: int = 0
    sent_bytes: int = 0


@contextmanager
def collecting(
    *, status: int = 200, location: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[Collector]:
    """Yield a collector that listens on loopback, and responds with *status* to all requests."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(body)
            collector.paths.append(self.path)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()


@contextmanager
def closing_collector() -> Iterator[DeadCollector]:
    """Yield a collector that closes each connection at once."""
    with _dead_collector(socket.socket.close) as collector:
        yield collector


@contextmanager
def silent_collector() -> Iterator[DeadCollector]:
    """Yield a collector that keeps each connection open."""
    with (
        ExitStack() as open_connections,
        _dead_collector(open_connections.enter_context) as collector,
    ):
        yield collector


@contextmanager
def reciting_collector(pieces: Callable[[], Iterable[bytes]]) -> Iterator[DeadCollector]:
    """Yield a collector that sends *pieces* to each client, for as long as the client reads."""
    collector = DeadCollector()

    def recite(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(0.3)  # the system may not say that the client has gone
            connection.recv(1 << 16)
            for piece in pieces():
                connection.sendall(piece)
                collector.sent_bytes += len(piece)

    with _dead_collector(recite, collector):
        yield collector


@contextmanager
def _dead_collector(
    treat: Callable[[socket.socket], object], collector: DeadCollector | None = None
) -> Iterator[DeadCollector]:
    collector = collector or DeadCollector()

    def accept() -> None:
        with suppress(OSError):  # the block has ended
            while True:
                connection, _ = listener.accept()
                collector.connections += 1
                treat(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        collector.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield collector
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
