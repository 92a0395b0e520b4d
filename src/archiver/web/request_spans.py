"""The span of each HTTP request, if this process traces."""

from collections.abc import Mapping, Sequence

from archiver.telemetry.tracing import NOTHING, TRACEPARENT, Kind, Span, SpanName, Value, span
from archiver.web.access_log import KNOWN_METHODS, QUIET_ROUTES, printable
from archiver.web.request_context import NO_SOURCE, RequestContext
from archiver.web.router import Route

SERVER_ERROR = 500


class RequestSpans:
    """Begins and ends the spans of requests. They say no more than the access log.

    Requests that machines repeat every few seconds, such as for the heartbeat, get no span.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._quiet = {route.path.encode() for route in routes if route.name in QUIET_ROUTES}
        self._paths = {route.name: route.path.replace(":path", "") for route in routes}

    def begin(self, context: RequestContext) -> Span:
        """Return the span of a request, the parent of all spans until it is ended."""
        if context.raw_path in self._quiet:
            return NOTHING
        caller = context.header(TRACEPARENT.encode())
        return span(SpanName.REQUEST, kind=Kind.SERVER, parent=caller).__enter__()

    def end(self, begun: Span, context: RequestContext) -> None:
        """Complete the span of a request that has been answered, or whose client has left."""
        if begun.is_recorded:
            begun.set_standard(self._standard(context))
            begun.set(outcome=context.outcome, request_id=context.request_id)
            if context.source != NO_SOURCE:
                begun.set(source=context.source)
            if context.status and context.status >= SERVER_ERROR:
                begun.fail(context.outcome)
        begun.__exit__(None, None, None)

    def _standard(self, context: RequestContext) -> Mapping[str, Value]:
        """Return the attributes of https://opentelemetry.io/docs/specs/semconv/http/http-spans.

        The query is left out, as in the log: it may hold secrets. So is the client.
        """
        known = context.method in KNOWN_METHODS
        attributes: dict[str, Value] = {
            "http.request.method": context.method if known else "_OTHER",
            "url.path": printable(context.raw_path),
            "url.scheme": context.state.config.public_url.partition(":")[0],
        }
        if path := self._paths.get(context.route):
            attributes["http.route"] = path
        if context.status:
            attributes["http.response.status_code"] = context.status
        return attributes
