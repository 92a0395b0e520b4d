"""What a client is told, or sent to, while the archive that it wants is being brought."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.errors import InvalidRequest
from archiver.model import Archive, Pending, Ready, Wanted
from archiver.web import fastlane
from archiver.web.delay import retry_after_s
from archiver.web.exchange import exchange, nobody
from archiver.web.ledger import HELD, WAITED
from archiver.web.problems import problem
from archiver.web.site import State
from archiver.web.waiting import Patience
from archiver.web.watches import Woken


class OnMiss(StrEnum):
    """What ``on_miss`` may be: where to go instead of waiting, or that nothing is to be brought."""

    REDIRECT = "redirect"
    NONE = "none"


def parse_on_miss(text: str | None) -> OnMiss | None:
    """Return what ``on_miss`` says, if it is given. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        return OnMiss(text)
    except ValueError:
        raise InvalidRequest(
            "on_miss is nothing that can be done", parameter="on_miss", allowed="redirect, none"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A parsed request: what is wanted, and what a client will put up with if it is not there.

    ``address`` and ``query`` make the URL that was asked for, as we would have written it, without
    what is said here of the miss.
    """

    wanted: Wanted
    address: str
    query: Mapping[str, str]
    patience: Patience
    on_miss: OnMiss | None

    @property
    def takes_202(self) -> bool:
        """Whether the client knows what a 202 is. Who asks for anything else gets none."""
        return self.patience.or_202 or (self.patience.wait_s is None and self.on_miss is None)

    def again(self, left: Patience) -> str:
        """Return the URL of the same request by who has *left* to wait."""
        query = {**self.query, "wait": str(left.wait_s), "hop": str(left.hop)}
        if self.on_miss:
            query["on_miss"] = self.on_miss.value
        return f"{self.address}?{urlencode(query, safe='/')}"


async def outwait(
    request: Request[State], ask: Ask, pending: Pending, render: Callable[[Ready], Response]
) -> Response:
    """Return what *render* makes of where the archive is if it comes in time, else what to answer.

    Raises:
        TaskFailed, TooManyWaiters: As ``Waiting.hold`` does.
    """
    waited: Response | Woken = Woken.TIME
    hold_s = ask.patience.hold_s(request.state["site"].holding)
    if hold_s:
        waited = await request.state["waiting"].hold(
            pending.archive,
            ask.wanted,
            render=render,
            hold_s=hold_s,
            client=request.state["site"].clients.address(request.scope),
            near=fastlane.region(request.scope),
            receive=request.receive,
        )
    if isinstance(waited, Response):
        exchange(request).outcome = WAITED
        return _Shared(waited)
    if waited is Woken.LEFT:
        return nobody(request)
    if left := ask.patience.after(hold_s):
        return _again(request, pending, ask.again(left))
    return await _out_of_time(request, ask, pending)


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
    if ask.takes_202:
        exchange(request).outcome = pending.outcome.value
        return await _accepted(request, pending)
    response = problem(
        request,
        "not_ready_yet",
        "the archive is being made; come back for it",
        retry_after_s=await retry_after_s(request, pending.archive.source),
    )
    response.headers.update(_on_a_miss(pending))
    return response


def _at_the_host(request: Request[State], archive: Archive) -> str | None:
    """Return the host's own URL of these very files in this very format, if it serves them."""
    source = request.state["archiver"].source(archive.source)
    return source.url(archive) if source.fetchable(archive) == archive else None


async def _accepted(request: Request[State], pending: Pending) -> Response:
    delay_s = await retry_after_s(request, pending.archive.source)
    return JSONResponse(
        {"result": {}},
        status_code=202,
        headers={
            "Location": request.state["site"].status_url(pending.archive),
            "Retry-After": str(delay_s),
            **_on_a_miss(pending),
        },
    )


def _on_a_miss(pending: Pending) -> dict[str, str]:
    return {
        "Archiver-Cache": pending.outcome.value,
        "Archiver-Node": pending.archive.node,
        "Cache-Control": "no-store",
        "Vary": "Prefer",
    }
