"""The replies to a request for an archive: to a hit, and to a miss."""

import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from starlette.responses import JSONResponse, Response

from archiver.errors import ArchiverError, OtherBytes, TooManyWaiters
from archiver.model import Absent, EnqueueOutcome, Manifest, Pending, Ready, rev_hash
from archiver.tasks import Backlog
from archiver.tree_proof import TreeMatch
from archiver.web.api.client_request import ClientRequest, OnMiss
from archiver.web.problems import problem
from archiver.web.reply import (
    HELD,
    HIT,
    JOINED,
    MISS,
    SENT_TO_HOST,
    WAITED,
    Hold,
    Repeatable,
    Reply,
    client_left,
)
from archiver.web.request_context import RequestContext, WebConfig
from archiver.web.waiting.task_watch import Variant
from archiver.web.waiting.wake import Wake

REPEAT_FOR_S = 1.0
"""How long a crowd gets the same 202 without another look at its task."""

JITTER = 0.2
"""Spreads the return of clients that came together."""

_CACHE_OUTCOME = {EnqueueOutcome.CREATED: MISS, EnqueueOutcome.JOINED: JOINED}

Render: TypeAlias = Callable[[Ready], Response]
"""Makes the response to a hit."""

Find: TypeAlias = Callable[[], Awaitable[Ready | Pending | Absent | None]]
"""Looks the archive up and creates nothing."""


def hit_reply(ready: Ready, rev: str, render: Render, *, refind: Find | None) -> Reply:
    """Return the reply to a hit of *rev*. With *refind*, which renews it, it is repeatable."""
    response = render(ready)
    repeatable = partial(_repeatable, response, ready, rev, render, refind) if refind else None
    return Reply(response=response, outcome=HIT, repeatable=repeatable)


def _repeatable(
    response: Response, ready: Ready, rev: str, render: Render, refind: Find
) -> Repeatable:
    """Return the response, which is true until its archive or its rev changes."""
    topics, good_until = [ready.archive.key_hash], math.inf
    if ready.good_until:
        topics.append(rev_hash(ready.archive.source, ready.archive.repo, rev))
        left = ready.good_until - datetime.now(UTC)
        good_until = time.monotonic() + left.total_seconds()

    async def renew() -> Repeatable | None:
        found = await refind()
        if not isinstance(found, Ready):
            return None
        return _repeatable(render(found), found, rev, render, refind)

    return Repeatable(
        response=response,
        outcome=HIT,
        topics=tuple(topics),
        good_until=good_until,
        renew=renew,
        archive=ready.archive.key_hash,
    )


def redirect(config: WebConfig, rev: str, ready: Ready) -> Response:
    """Return the redirect to the archive at *rev*.

    It is a 302 even though archives never change: the first clients understand nothing else, and
    Bazel gives up at a 308.
    """
    archive = ready.archive
    links = [f'<{config.status_url(archive)}>; rel="describedby"']
    if rev != archive.node:
        links.append(f'<{config.canonical_url(archive)}>; rel="canonical"')
    headers = {
        b"location": ready.url,
        b"cache-control": "private, no-store",
        b"link": ", ".join(links),
        b"archiver-cache": HIT,
        b"archiver-node": archive.node,
        b"archiver-sha256": ready.manifest.sha256,
        b"archiver-size": str(ready.manifest.size_bytes),
        b"archiver-region": ready.region,
    }
    proof = ready.manifest.proof
    if proof and proof.match is not TreeMatch.OTHER:
        headers[b"archiver-proof"] = proof.match
    if ready.requested_region not in {None, ready.region}:
        headers[b"archiver-region-fallback"] = str(ready.requested_region)
    response = Response(status_code=302)
    response.raw_headers += [(name, text.encode("latin-1")) for name, text in headers.items()]
    return response


def insist(sha256: str, render: Render, ready: Ready) -> Response:
    """Return the response to a client that accepts no other bytes. Raises OtherBytes."""
    require_sha256(sha256, ready.manifest)
    return render(ready)


def require_sha256(sha256: str, manifest: Manifest) -> None:
    """Raise OtherBytes unless the archive has these bytes."""
    if manifest.sha256 != sha256:
        why = ": it expired, and was built again" if manifest.supersedes == sha256 else ""
        raise OtherBytes(
            f"the archive has the SHA-256 {manifest.sha256}, not {sha256}{why}",
            sha256=manifest.sha256,
        )


async def miss_reply(
    context: RequestContext, request: ClientRequest, pending: Pending, render: Render
) -> Reply | Hold:
    """Return a hold if the client will wait for the archive, else what it gets at once."""
    hold_s = request.wait.hold_s(context.state.config.wait_limits)
    left_s = hold_s - context.age_s  # a slow host may have taken most of it
    if left_s > 0:
        return Hold(wait=partial(_wait, context, request, pending, render, left_s))
    return await _after_hold(context, request, pending)


async def _wait(
    context: RequestContext,
    request: ClientRequest,
    pending: Pending,
    render: Render,
    timeout_s: float,
) -> Reply:
    """Wait for the archive, and return the reply.

    Raises TaskFailed or OtherBytes; and TooManyWaiters if the client accepts no other reply.
    """
    variant = Variant(
        request.archive_request,
        request.url,
        request.sha256,
        context.client.region,
        context.principal,
    )
    try:
        with context.state.waiters.watch(pending.archive, context.share_holder) as watch:
            waited = await watch.wait_for_response(
                variant,
                render,
                may_read=context.may_read,
                timeout_s=timeout_s,
                receive=context.receive,
            )
    except TooManyWaiters:
        if not request.accepts_202 and request.on_miss is not OnMiss.REDIRECT:
            raise
        return _with_preference(await _without_archive(context, request, pending), request)
    except ArchiverError:
        context.require_readable(pending.archive)
        raise
    context.require_readable(pending.archive)  # its token may have been removed during the wait
    if isinstance(waited, Response):
        return _with_preference(Reply(response=waited, outcome=WAITED), request)
    if waited is Wake.CLIENT_LEFT:
        return client_left()
    return await _after_hold(context, request, pending)


async def _after_hold(context: RequestContext, request: ClientRequest, pending: Pending) -> Reply:
    """Redirect a client that will wait longer to a URL that counts its holds.

    The URL differs each time, because wget2 would stop at a redirect to the same one.
    """
    hold_s = request.wait.hold_s(context.state.config.wait_limits)
    held_s = min(hold_s, context.age_s)  # less if this process is about to end
    if left := request.wait.after(held_s):
        reply = _lead_to(request.next_url(left), pending, outcome=HELD)
    else:
        reply = await _without_archive(context, request, pending)
    return _with_preference(reply, request)


async def _without_archive(
    context: RequestContext, request: ClientRequest, pending: Pending
) -> Reply:
    archive = pending.archive
    if request.on_miss is OnMiss.REDIRECT and not archive.flags:  # no host has complete ones
        source = context.state.archiver.source(archive.source)
        if url := source.download_url(archive):
            return _lead_to(url, pending, outcome=SENT_TO_HOST)
    backlog = await context.state.archiver.backlog(archive)
    draw_retry_after = _retry_after(context, backlog)
    if request.accepts_202:
        repeatable = not (request.wait.from_header or (backlog and backlog.parked))
        location = context.state.config.status_url(archive, request.sha256)
        return _accepted(location, pending, draw_retry_after, repeatable=repeatable)
    reply = problem(
        context,
        "not_ready_yet",
        "the archive is being built; try again later",
        retry_after_s=draw_retry_after(),
    )
    reply.response.headers.update(_headers(pending))
    return reply


def _lead_to(url: str, pending: Pending, *, outcome: str) -> Reply:
    headers = {"Location": url, **_headers(pending)}
    return Reply(response=Response(status_code=302, headers=headers), outcome=outcome)


def _accepted(
    location: str, pending: Pending, draw_retry_after: Callable[[], int], *, repeatable: bool
) -> Reply:
    """Return the 202. Each client of a crowd gets the same one with its own ``Retry-After``.

    The clients that follow the first have all joined its task. While that is parked, each of them
    has to reach the queue, where it may have the task built earlier.
    """

    def response(pending: Pending) -> Response:
        headers = {"Location": location, **_headers(pending)}
        return JSONResponse({"result": {}}, status_code=202, headers=headers)

    def joined() -> Repeatable:
        return Repeatable(
            response=response(replace(pending, outcome=EnqueueOutcome.JOINED)),
            outcome=JOINED,
            topics=(pending.archive.key_hash,),
            good_until=time.monotonic() + REPEAT_FOR_S,
            retry_after=draw_retry_after,
            unless_header=b"prefer",
        )

    first = response(pending)
    first.headers["Retry-After"] = str(draw_retry_after())
    return Reply(
        response=first,
        outcome=_CACHE_OUTCOME[pending.outcome],
        repeatable=joined if repeatable else None,
    )


def _headers(pending: Pending) -> Mapping[str, str]:
    return {
        "Archiver-Cache": _CACHE_OUTCOME[pending.outcome],
        "Archiver-Node": pending.archive.node,
        "Cache-Control": "no-store",
        "Vary": "Prefer",
    }


def _with_preference(reply: Reply, request: ClientRequest) -> Reply:
    """Return *reply* with ``Preference-Applied``, if the client sent a preference.

    The response is copied, because clients that waited for the same archive share it.
    """
    if not request.wait.from_header:
        return reply
    response = Response(reply.response.body, status_code=reply.response.status_code)
    response.raw_headers = [
        *reply.response.raw_headers,
        (b"preference-applied", request.wait.applied.encode("latin-1")),
    ]
    return replace(reply, response=response)


def _retry_after(context: RequestContext, backlog: Backlog | None) -> Callable[[], int]:
    """Return a function that draws ``Retry-After`` for each client of an archive.

    It draws near the time at which the task should be done. If the queue cannot be read, it draws
    near ``server.retry_after_s``.
    """
    config = context.state.config
    unknown = timedelta(seconds=config.retry_after_s)
    outlook = backlog.estimate_wait(unknown) if backlog else unknown

    def draw() -> int:
        delay_s = outlook.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        return max(1, min(round(delay_s), config.retry_after_max_s))

    return draw
