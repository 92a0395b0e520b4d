"""The ASGI application: the one way in for every request.

A request is answered from the response cache, or waits for an identical one, or is routed to its
handler. The reply gets the standard headers, is remembered if it may be repeated, and is logged.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import assert_never

from starlette.types import Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from archiver.access.scopes import Scope as AccessScope
from archiver.errors import ArchiverError, Unauthenticated
from archiver.telemetry import log, tracing
from archiver.web import problems
from archiver.web.access_log import AccessLog
from archiver.web.client_address import ClientResolver
from archiver.web.problems import Misdirected
from archiver.web.reply import CLIENT_LEFT, Hold, Reply, with_standard_headers
from archiver.web.request_context import RequestContext, WebState, request_id
from archiver.web.request_spans import RequestSpans
from archiver.web.response_cache import CachedResponse, CacheKey, ResponseCache
from archiver.web.router import Permission, Route, Router


class Application:
    """Answers every HTTP request. ``state`` is open from startup to shutdown."""

    state: WebState

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        open_state: Callable[[], AbstractAsyncContextManager[WebState]],
        clients: ClientResolver,
        cache: ResponseCache,
        access_log: AccessLog,
    ) -> None:
        self._router = Router(routes)
        self._routes = routes
        self._spans: RequestSpans | None = None
        self._open_state = open_state
        self._clients = clients
        self._cache = cache
        self._access_log = access_log
        self._flights: dict[CacheKey, _Flight] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        phase = "startup"
        await receive()
        try:
            async with self._open_state() as self.state:
                self._spans = RequestSpans(self._routes) if tracing.is_on() else None
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except BaseException:
            await send({"type": f"lifespan.{phase}.failed"})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext(
            request_id(scope["headers"]),
            scope["method"],
            scope["raw_path"],
            scope["query_string"],
            scope["headers"],
            self._clients.resolve(scope),
            receive,
            self.state,
            time.perf_counter(),
        )
        self._authenticate(context, scope)
        key = CacheKey(
            context.method,
            context.raw_path,
            context.query,
            context.client.region,
            context.principal,
        )
        spans = self._spans
        span = spans.begin(context) if spans else None
        try:
            cached = self._cached(context, key)
            if cached is None and not context.refusal and (flight := self._flights.get(key)):
                flight.followers += 1
                await flight.wait()
                cached = self._cached(context, key)
            if cached:
                if cached.archive:
                    self.state.archiver.hits.notify(cached.archive)
                await _repeat(cached, context, send)
            else:
                await self._handle(context, key, scope, send)
        except asyncio.CancelledError:
            context.outcome = CLIENT_LEFT
            raise
        finally:
            self._access_log.record(context, duration_s=time.perf_counter() - context.began)
            if spans and span:
                spans.end(span, context)

    def _authenticate(self, context: RequestContext, scope: Scope) -> None:
        """Set the client of a request, or the reason why it is not known."""
        try:
            context.principal = self.state.access.authenticate(
                scope["headers"], from_proxy=self._clients.is_trusted(scope)
            )
        except Unauthenticated as exc:
            context.refusal = exc

    def _cached(self, context: RequestContext, key: CacheKey) -> CachedResponse | None:
        if context.refusal:
            return None
        cached = self._cache.get(key)
        if cached and cached.unless_header and context.has_header(cached.unless_header):
            return None
        return cached

    async def _handle(
        self, context: RequestContext, key: CacheKey, scope: Scope, send: Send
    ) -> None:
        """Send the reply of the handler, or the problem that it raised.

        No text of an exception reaches the client or the server.
        """
        send = _with_headers(context, send)
        bound = bind_contextvars(request_id=context.request_id)
        try:
            reply = await self._reply(context, key)
            context.outcome = reply.outcome
            await reply.response(scope, context.receive, send)
        except Exception as exc:  # noqa: BLE001 - the client gets a response whatever happens
            if context.status or not isinstance(exc, ArchiverError | Misdirected):
                log.exception("request.crashed", route=context.route)
            if context.status is None:
                reply = problems.reply_to(context, exc)
                context.outcome = reply.outcome
                await reply.response(scope, context.receive, send)
        finally:
            reset_contextvars(**bound)

    async def _reply(self, context: RequestContext, key: CacheKey) -> Reply:
        route = self._router.resolve(context)
        _require_permission(context, route.permission)
        if route.cacheable and self._cache.accepts(key):
            reply = await self._lead(context, key, route)
        else:
            reply = await route.handler(context)
        return await reply.wait() if isinstance(reply, Hold) else reply

    async def _lead(self, context: RequestContext, key: CacheKey, route: Route) -> Reply | Hold:
        """Return the handler's reply, for which identical requests wait, or its hold.

        A hold ends the flight, so that identical requests do not wait for this client's wait. The
        first request of its kind is not remembered: a long tail of archives, each requested once,
        then costs next to nothing.
        """
        version = self._cache.version
        with self._flight(key) as flight:
            reply = await route.handler(context)
            repeatable = isinstance(reply, Reply) and reply.repeatable
            if repeatable and (self._cache.seen_before(key) or flight.followers):
                self._cache.remember(
                    key,
                    repeatable(),
                    route=context.route,
                    source=context.source,
                    version=version,
                )
            return reply

    @contextmanager
    def _flight(self, key: CacheKey) -> Iterator["_Flight"]:
        """Yield a flight that is set when the block ends.

        It has no followers if another flight for *key* is not set yet.
        """
        flight = _Flight()
        self._flights.setdefault(key, flight)
        try:
            yield flight
        finally:
            flight.set()
            if self._flights.get(key) is flight:
                del self._flights[key]


def _require_permission(context: RequestContext, permission: Permission) -> None:
    """Return if the client may use a route. Raises Unauthenticated, or Forbidden."""
    if permission is Permission.PUBLIC:
        return
    if context.refusal:
        raise context.refusal
    match permission:
        case Permission.READ:
            context.state.access.require_scope(context.principal, AccessScope.READ)
        case Permission.CREATE:
            context.state.access.require_scope(context.principal, AccessScope.CREATE)
        case Permission.ADMIN:
            context.state.access.require_scope(context.principal, AccessScope.ADMIN)
        case Permission.METRICS:
            context.state.access.require_metrics(context.principal)
        case _:
            assert_never(permission)


class _Flight(asyncio.Event):
    """Set once a request has been handled. ``followers`` counts the identical ones that wait."""

    followers = 0


def _with_headers(context: RequestContext, send: Send) -> Send:
    """Return a *send* that adds the headers of every response, and notes its status."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            headers = with_standard_headers(message["headers"])
            headers.append((b"x-request-id", context.request_id.encode()))
            message["headers"] = headers
        await send(message)

    return send_with_headers


async def _repeat(cached: CachedResponse, context: RequestContext, send: Send) -> None:
    headers = [*cached.headers, (b"x-request-id", context.request_id.encode())]
    if cached.retry_after:
        headers.append((b"retry-after", b"%d" % cached.retry_after()))
    context.route, context.source = cached.route, cached.source
    context.outcome, context.status = cached.outcome, cached.status
    await send({"type": "http.response.start", "status": cached.status, "headers": headers})
    await send({"type": "http.response.body", "body": cached.body, "more_body": False})
