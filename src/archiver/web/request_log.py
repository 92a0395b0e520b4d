"""One id for each request, a place in the ledger; and an answer, should all else fail."""

import asyncio
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from archiver.telemetry import log
from archiver.web import problems
from archiver.web.exchange import RAW_ON_EVERY_ANSWER, Exchange, request_id
from archiver.web.ledger import Ledger


class RequestLog:
    """Wraps the routes. What they raise ends here: no text of an exception reaches the server."""

    def __init__(self, app: ASGIApp, *, ledger: Ledger) -> None:
        self._app = app
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(request_id=request_id(scope["headers"]))
        exchange.bind(scope)
        started = time.perf_counter()
        bound = bind_contextvars(request_id=exchange.request_id)
        try:
            await self._answer(exchange, scope, receive, send)
        finally:
            duration_s = time.perf_counter() - started
            self._ledger.enter(exchange, scope, route=_route(scope), duration_s=duration_s)
            reset_contextvars(**bound)

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


def _add_headers(message: Message, exchange: Exchange) -> None:
    headers = [
        *message["headers"],
        *RAW_ON_EVERY_ANSWER,
        (b"x-request-id", exchange.request_id.encode()),
    ]
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"no-store"))
    message["headers"] = headers


def _route(scope: Scope) -> str:
    return scope["route"].name if "route" in scope else "none"
