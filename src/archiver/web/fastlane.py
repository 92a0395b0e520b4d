"""Stands before the application, and answers hits that were given a moment ago from memory."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archiver.model import Region
from archiver.web.clients import Clients
from archiver.web.exchange import Exchange, request_id
from archiver.web.hits import Again, Hit, Hits, Target
from archiver.web.ledger import FOUND, Ledger

NO_BODY: Message = {"type": "http.response.body", "body": b"", "more_body": False}

_OFFER = "archiver.offer"


class FastLane:
    """An ASGI application around the one that makes the answers."""

    def __init__(self, app: ASGIApp, *, hits: Hits, ledger: Ledger, clients: Clients) -> None:
        self._app = app
        self._clients = clients
        self._hits = hits
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        region = self._clients.region(scope)
        target = Target(scope["method"], scope["raw_path"], scope["query_string"], region)
        hit = self._hits.get(target)
        if hit is None:
            scope[_OFFER] = (target, self._hits.moment)
            await self._app(scope, receive, send)
            return
        name = request_id(scope["headers"])
        headers = [*hit.headers, (b"x-request-id", name.encode())]
        await send({"type": "http.response.start", "status": FOUND, "headers": headers})
        await send(NO_BODY)
        duration_s = time.perf_counter() - began
        if self._ledger.counts_hits:
            self._ledger.count_hit(hit.route, hit.source, scope["method"], FOUND, duration_s)
            return
        exchange = Exchange(request_id=name, source=hit.source, outcome="hit", status=FOUND)
        self._ledger.enter(exchange, scope, route=hit.route, duration_s=duration_s)


def region(scope: Scope) -> Region | None:
    """Return the region near the client of *scope*, as it was when the request came."""
    target, _ = scope[_OFFER]
    near: Region | None = target.region
    return near


def comes_again(hits: Hits, scope: Scope) -> bool:
    """Tell whether the request of *scope* has come before, so that it is worth keeping."""
    target, _ = scope[_OFFER]
    return hits.comes_again(target)


def offer(hits: Hits, scope: Scope, hit: Hit, again: Again) -> None:
    """Have the request of *scope* answered with *hit* the next time."""
    target, moment = scope[_OFFER]
    hits.offer(target, hit, again, moment=moment)
