"""One id, one line and one measure for each request; and an answer, should all else fail."""

import asyncio
import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archiver.telemetry import METRICS, log
from archiver.web import problems
from archiver.web.exchange import Exchange

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

ON_EVERY_ANSWER = {
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

ARCHIVE_ROUTE = "archive"

QUIET_ROUTES = frozenset({"version", "heartbeat", "lbheartbeat", "metrics"})
"""Asked by machines, every few seconds."""

CLIENT_LEFT = 499
"""nginx's number for a client that did not wait for the answer."""

PATH_LOGGED_CHARS = 1000


class RequestLog:
    """Wraps the routes. What they raise ends here: no text of an exception reaches the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(request_id=_request_id(scope))
        exchange.bind(scope)
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            try:
                await self._answer(exchange, scope, receive, send)
            finally:
                _tell(exchange, scope, time.perf_counter() - started)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                _add_headers(message, exchange)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            exchange.outcome = "client_left"
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets an answer
            log.exception("request.crashed", route=_route(scope))
            if exchange.status is None:
                response = await problems.answer(Request(scope), exc)
                await response(scope, receive, send_with_headers)


def _request_id(scope: Scope) -> str:
    """Return the id that the client, or a proxy, gave to the request if it is a sane one."""
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)


def _add_headers(message: Message, exchange: Exchange) -> None:
    headers = MutableHeaders(scope=message)
    headers.update({**ON_EVERY_ANSWER, "X-Request-ID": exchange.request_id})
    headers.setdefault("Cache-Control", "no-store")


def _tell(exchange: Exchange, scope: Scope, duration_s: float) -> None:
    route = _route(scope)
    method = scope["method"] if scope["method"] in {"GET", "HEAD"} else "other"
    status = exchange.status or CLIENT_LEFT
    METRICS.http_requests.labels(route=route, method=method, code=status).observe(duration_s)
    if route == ARCHIVE_ROUTE:
        METRICS.requests.labels(source=exchange.source, outcome=exchange.outcome).inc()
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
    )


def _route(scope: Scope) -> str:
    return scope["route"].name if "route" in scope else "none"


def _printable(raw_path: bytes) -> str:
    """Return the path as it was sent, on one line. The query stays out: it may hold anything."""
    text = raw_path[:PATH_LOGGED_CHARS].decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
