"""The response to a miss: the archive after a wait, a redirect, a 202, or a 503."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from starlette.responses import JSONResponse, Response

from archiver.errors import TooManyWaiters
from archiver.model import Archive, EnqueueOutcome, Pending
from archiver.web.api.client_request import ClientRequest, OnMiss
from archiver.web.api.hit_response import Render
from archiver.web.api.retry_after import retry_after
from archiver.web.api.urls import status_url
from archiver.web.problems import problem
from archiver.web.reply import (
    HELD,
    JOINED,
    MISS,
    SENT_TO_HOST,
    WAITED,
    Hold,
    Repeatable,
    Reply,
    client_left,
)
from archiver.web.request_context import RequestContext
from archiver.web.waiting.task_watch import Variant
from archiver.web.waiting.wake import Wake
from archiver.web.web_config import WebConfig

REPEAT_FOR_S = 1.0
"""How long a crowd gets the same 202 without another look at its task."""

_CACHE_OUTCOME = {EnqueueOutcome.CREATED: MISS, EnqueueOutcome.JOINED: JOINED}


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

    Raises:
        TaskFailed: The task has failed for good.
        TooManyWaiters: No more requests may wait, and the client accepts no other reply.
    """
    try:
        waited = await context.state.waiters.wait_for_archive(
            pending.archive,
            Variant(
                archive_request=request.archive_request,
                url=request.url,
                client_region=context.client.region,
            ),
            render=render,
            timeout_s=timeout_s,
            client=context.client.group,
            receive=context.receive,
        )
    except TooManyWaiters:
        if not request.accepts_202 and request.on_miss is not OnMiss.REDIRECT:
            raise
        return _with_preference(await _without_archive(context, request, pending), request)
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
        reply = _redirect(request.next_url(left), pending, outcome=HELD)
    else:
        reply = await _without_archive(context, request, pending)
    return _with_preference(reply, request)


async def _without_archive(
    context: RequestContext, request: ClientRequest, pending: Pending
) -> Reply:
    if request.on_miss is OnMiss.REDIRECT and (url := _url_at_host(context, pending.archive)):
        return _redirect(url, pending, outcome=SENT_TO_HOST)
    draw_retry_after = await retry_after(context, pending.archive.source)
    if request.accepts_202:
        repeatable = not request.wait.from_header
        return _accepted(context.state.config, pending, draw_retry_after, repeatable=repeatable)
    reply = problem(
        context,
        "not_ready_yet",
        "the archive is being built; try again later",
        retry_after_s=draw_retry_after(),
    )
    reply.response.headers.update(_headers(pending))
    return reply


def _url_at_host(context: RequestContext, archive: Archive) -> str | None:
    """Return the host's URL of exactly this archive, if it serves this format and subdirectory."""
    source = context.state.archiver.source(archive.source)
    return source.url(archive) if source.served.fetchable(archive) == archive else None


def _redirect(url: str, pending: Pending, *, outcome: str) -> Reply:
    headers = {"Location": url, **_headers(pending)}
    return Reply(response=Response(status_code=302, headers=headers), outcome=outcome)


def _accepted(
    config: WebConfig, pending: Pending, draw_retry_after: Callable[[], int], *, repeatable: bool
) -> Reply:
    """Return the 202. Each client of a crowd gets the same one with its own ``Retry-After``."""
    response = _accepted_response(config, pending)
    response.headers["Retry-After"] = str(draw_retry_after())
    return Reply(
        response=response,
        outcome=_CACHE_OUTCOME[pending.outcome],
        repeatable=partial(_joined, config, pending, draw_retry_after) if repeatable else None,
    )


def _joined(config: WebConfig, pending: Pending, draw_retry_after: Callable[[], int]) -> Repeatable:
    """Return the 202 of the clients that follow the first: they have all joined its task."""
    return Repeatable(
        response=_accepted_response(config, replace(pending, outcome=EnqueueOutcome.JOINED)),
        outcome=JOINED,
        topics=(pending.archive.key_hash,),
        good_until=time.monotonic() + REPEAT_FOR_S,
        retry_after=draw_retry_after,
        unless_header=b"prefer",
    )


def _accepted_response(config: WebConfig, pending: Pending) -> Response:
    headers = {"Location": status_url(config, pending.archive), **_headers(pending)}
    return JSONResponse({"result": {}}, status_code=202, headers=headers)


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
