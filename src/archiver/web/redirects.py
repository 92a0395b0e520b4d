"""What a hit is answered with, and what makes it be answered again for a while."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from archiver.model import Absent, Archive, ArchiveRequest, Pending, Ready, rev_hash
from archiver.web import fastlane
from archiver.web.answers import Answer
from archiver.web.asks import archive_path
from archiver.web.exchange import RAW_ON_EVERY_ANSWER, exchange
from archiver.web.site import Site, State

Render: TypeAlias = Callable[[Request[State], Ready, ArchiveRequest], Response]
"""Makes the answer to a hit of one request."""

Look: TypeAlias = Callable[[], Awaitable[Ready | Pending | Absent | None]]
"""Looks whether a hit is one still, and creates nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a hit is answered with; ``repeats`` says that who asks again may get it from memory."""

    render: Render
    repeats: bool = False


def hit(
    request: Request[State], ready: Ready, wanted: ArchiveRequest, form: Form, *, look: Look
) -> Response:
    """Return the answer to a hit, which is good as long as *look* finds it."""
    exchange(request).outcome = "hit"
    response = form.render(request, ready, wanted)
    if form.repeats:
        _repeat(request, response, ready, wanted, look)
    return response


def redirect(request: Request[State], ready: Ready, wanted: ArchiveRequest) -> Response:
    """302, for ever: the first clients take nothing else, and Bazel gives up at 308."""
    return _found(request.state["site"], ready, wanted)


REDIRECT = Form(render=redirect, repeats=True)


def _repeat(
    request: Request[State], response: Response, ready: Ready, wanted: ArchiveRequest, look: Look
) -> None:
    answers, scope = request.state["answers"], request.scope
    if not fastlane.comes_again(answers, scope):
        return
    site, route = request.state["site"], scope["route"].name

    async def again() -> Answer | None:
        match await look():
            case Ready() as ready:
                return _hit(_found(site, ready, wanted), ready, wanted, route)
            case _:
                return None

    fastlane.offer(answers, scope, _hit(response, ready, wanted, route), again)


def _hit(response: Response, ready: Ready, wanted: ArchiveRequest, route: str) -> Answer:
    topics, good_until = [ready.archive.key_hash], math.inf
    if ready.good_until:
        topics.append(rev_hash(wanted.source, wanted.repo, wanted.rev))
        left = ready.good_until - datetime.now(UTC)
        good_until = time.monotonic() + left.total_seconds()
    return Answer(
        headers=(*response.raw_headers, *RAW_ON_EVERY_ANSWER),
        source=wanted.source,
        route=route,
        topics=tuple(topics),
        good_until=good_until,
    )


def _found(site: Site, ready: Ready, wanted: ArchiveRequest) -> Response:
    headers = {
        b"location": ready.url,
        b"cache-control": "private, no-store",
        b"link": ", ".join(_links(ready.archive, wanted, site)),
        b"archiver-cache": "hit",
        b"archiver-node": ready.archive.node,
        b"archiver-sha256": ready.manifest.sha256,
        b"archiver-size": str(ready.manifest.size_bytes),
        b"archiver-region": ready.region,
    }
    if ready.wanted not in {None, ready.region}:  # who is sent elsewhere is told from where
        headers[b"archiver-region-fallback"] = str(ready.wanted)
    response = Response(status_code=302)
    response.raw_headers += [(name, text.encode("latin-1")) for name, text in headers.items()]
    return response


def _links(archive: Archive, wanted: ArchiveRequest, site: Site) -> list[str]:
    links = [f'<{site.status_url(archive)}>; rel="describedby"']
    if wanted.rev != archive.node:
        links.append(f'<{_canonical_url(archive, site)}>; rel="canonical"')
    return links


def _canonical_url(archive: Archive, site: Site) -> str:
    """Return the address that means this archive for ever, whatever moves."""
    query = {"suffix": archive.suffix} | ({"subdir": archive.subdir} if archive.subdir else {})
    path = archive_path(archive, archive.node)
    return f"{site.public_url}{path}?{urlencode(query, safe='/')}"
