"""What a client is told, or sent to, while the archive that it wants is being brought."""

import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.errors import TooManyWaiters
from archiver.model import Archive, EnqueueOutcome, Pending
from archiver.web import fastlane
from archiver.web.answers import Answer
from archiver.web.asks import Ask, OnMiss
from archiver.web.delay import retry_after
from archiver.web.exchange import RAW_ON_EVERY_ANSWER, exchange, nobody
from archiver.web.ledger import HELD, WAITED
from archiver.web.problems import problem
from archiver.web.redirects import Render
from archiver.web.site import State, client_of
from archiver.web.watches import Sought, Woken

JOIN_FOR_S = 1.0
"""How long a crowd is told of a task without another look whether there is one."""


async def outwait(request: Request[State], ask: Ask, pending: Pending, render: Render) -> Response:
    """Return what *render* makes of where the archive is if it comes in time, else what to answer.

    Raises:
        TaskFailed, TooManyWaiters: As ``Waiting.hold`` does; the latter not if something else
            will do.
    """
    answer = await _outwait(request, ask, pending, render)
    if ask.patience.preferred:
        answer.headers["Preference-Applied"] = ask.patience.applied
    return answer


async def _outwait(request: Request[State], ask: Ask, pending: Pending, render: Render) -> Response:
    waited: Response | Woken = Woken.TIME
    hold_s = ask.patience.hold_s(request.state["site"].holding)
    left_s = hold_s - fastlane.age_s(request.scope)  # a slow host may have taken most of it
    if left_s > 0:
        try:
            waited = await _hold(request, ask, pending, render, left_s)
        except TooManyWaiters:
            if not ask.takes_202 and ask.on_miss is not OnMiss.REDIRECT:
                raise
            return await _out_of_time(request, ask, pending)
    if isinstance(waited, Response):
        exchange(request).outcome = WAITED
        return _Shared(waited)
    if waited is Woken.LEFT:
        return nobody(request)
    held_s = min(hold_s, fastlane.age_s(request.scope))  # less where this process is about to end
    if left := ask.patience.after(held_s):
        return _again(request, pending, ask.again(left))
    return await _out_of_time(request, ask, pending)


async def _hold(
    request: Request[State], ask: Ask, pending: Pending, render: Render, hold_s: float
) -> Response | Woken:
    fastlane.take_time(request.scope)
    return await request.state["waiting"].hold(
        pending.archive,
        Sought(wanted=ask.wanted, address=ask.address, near=fastlane.region(request.scope)),
        render=lambda ready: render(request, ready, ask.wanted),
        hold_s=hold_s,
        client=client_of(request),
        receive=request.receive,
    )


def _again(request: Request[State], pending: Pending, url: str) -> Response:
    """Send the client here again, to another URL each time: at the same one wget2 would stop."""
    exchange(request).outcome = HELD
    return Response(status_code=302, headers={"Location": url, **_on_a_miss(pending)})


class _Shared(Response):
    """A response that others are given too, so that headers may be added to this one alone."""

    def __init__(self, response: Response) -> None:
        self.status_code = response.status_code
        self.background = None
        self.body = response.body
        self.raw_headers = list(response.raw_headers)


async def _out_of_time(request: Request[State], ask: Ask, pending: Pending) -> Response:
    if ask.on_miss is OnMiss.REDIRECT and (url := _at_the_host(request, pending.archive)):
        exchange(request).outcome = "sent_to_host"
        return Response(status_code=302, headers={"Location": url, **_on_a_miss(pending)})
    draw = await retry_after(request, pending.archive.source)
    if ask.takes_202:
        exchange(request).outcome = pending.outcome.value
        response = _accepted(request, pending)
        if not ask.patience.preferred:
            _have_others_join(request, response, pending, draw)
        response.headers["Retry-After"] = str(draw())
        return response
    response = problem(
        request,
        "not_ready_yet",
        "the archive is being made; come back for it",
        retry_after_s=draw(),
    )
    response.headers.update(_on_a_miss(pending))
    return response


def _at_the_host(request: Request[State], archive: Archive) -> str | None:
    """Return the host's own URL of these very files in this very format, if it serves them."""
    source = request.state["archiver"].source(archive.source)
    return source.url(archive) if source.fetchable(archive) == archive else None


def _accepted(request: Request[State], pending: Pending) -> Response:
    return JSONResponse(
        {"result": {}},
        status_code=202,
        headers={
            "Location": request.state["site"].status_url(pending.archive),
            **_on_a_miss(pending),
        },
    )


def _have_others_join(
    request: Request[State], response: Response, pending: Pending, draw: Callable[[], int]
) -> None:
    """Give a crowd the same 202, but that each comes back at another moment.

    All but the first of it have joined the task.
    """
    answers, scope = request.state["answers"], request.scope
    if not fastlane.comes_again(answers, scope):
        return
    joined = EnqueueOutcome.JOINED.value
    headers = MutableHeaders(raw=[*response.raw_headers, *RAW_ON_EVERY_ANSWER])
    headers["Archiver-Cache"] = joined
    answer = Answer(
        status=response.status_code,
        headers=headers.raw,
        body=bytes(response.body),
        outcome=joined,
        retry_after=draw,
        source=pending.archive.source,
        route=scope["route"].name,
        topics=(pending.archive.key_hash,),
        good_until=time.monotonic() + JOIN_FOR_S,
    )
    fastlane.offer(answers, scope, answer)


def _on_a_miss(pending: Pending) -> dict[str, str]:
    return {
        "Archiver-Cache": pending.outcome.value,
        "Archiver-Node": pending.archive.node,
        "Cache-Control": "no-store",
        "Vary": "Prefer",
    }
