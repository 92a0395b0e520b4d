"""``/archiver/{source}/{repo}/{rev}``: where an archive is, or the task that brings it there."""

import math
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.errors import InvalidRequest
from archiver.model import (
    SUFFIXES,
    Absent,
    Archive,
    Pending,
    Ready,
    Region,
    Wanted,
    check_name,
    rev_digest,
)
from archiver.web import fastlane
from archiver.web.exchange import RAW_ON_EVERY_ANSWER, exchange
from archiver.web.hits import Hit
from archiver.web.problems import problem
from archiver.web.site import Site, State
from archiver.web.targets import parse_query, split_address

PARAMETERS = ("subdir", "suffix", "preferred_region")
DEFAULT_SUFFIX = "tar.gz"

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


async def archive(request: Request[State]) -> Response:
    """Redirect to the archive, or accept the task of bringing it; HEAD brings nothing about."""
    archiver, site = request.state["archiver"], request.state["site"]
    wanted = parse(request)
    create = request.method != "HEAD"
    near = fastlane.region(request.scope)
    match await archiver.request(wanted, method=request.method, create=create, client_region=near):
        case Ready() as ready:
            return _hit(request, ready, wanted)
        case Pending() as pending:
            exchange(request).outcome = pending.outcome.value
            return _accepted(pending, site)
        case Absent():
            return problem(request, "absent", "the archive is not there; a GET would bring it")


def _hit(request: Request[State], ready: Ready, wanted: Wanted) -> Response:
    """Redirect, and have the same request answered from memory for a while."""
    archiver, site, method = request.state["archiver"], request.state["site"], request.method
    near = fastlane.region(request.scope)

    async def again() -> Hit | None:
        match await archiver.request(wanted, method=method, create=False, client_region=near):
            case Ready() as ready:
                return _repeatable(_redirect(ready, wanted, site), ready, wanted)
            case _:
                return None

    exchange(request).outcome = "hit"
    response = _redirect(ready, wanted, site)
    fastlane.offer(
        request.state["hits"], request.scope, _repeatable(response, ready, wanted), again
    )
    return response


def _repeatable(response: Response, ready: Ready, wanted: Wanted) -> Hit:
    topics, good_until = [ready.archive.digest], math.inf
    if ready.good_until:
        topics.append(rev_digest(wanted.source, wanted.repo, wanted.rev))
        left = ready.good_until - datetime.now(UTC)
        good_until = time.monotonic() + left.total_seconds()
    return Hit(
        headers=(*response.raw_headers, *RAW_ON_EVERY_ANSWER),
        source=wanted.source,
        topics=tuple(topics),
        good_until=good_until,
    )


def parse(request: Request[State]) -> Wanted:
    """Return what is wanted; every 400 of this route arises here.

    Raises:
        InvalidRequest: A part of the path or of the query is not what it has to be.
        UnknownSource: There is no such source.
    """
    name, repo, rev = split_address(request.path_params["address"])
    source = request.state["archiver"].source(check_name(name, "source"))
    exchange(request).source = source.name
    query = parse_query(request.scope["query_string"], known=PARAMETERS)
    return Wanted(
        source=source.name,
        repo=repo,
        rev=rev,
        subdir=query.get("subdir", ""),
        suffix=_suffix(query.get("suffix", DEFAULT_SUFFIX)),
        preferred_region=_region(query.get("preferred_region", "")),
    )


def _suffix(text: str) -> str:
    if text not in SUFFIXES:
        raise InvalidRequest(
            "suffix is none that can be made", parameter="suffix", allowed=", ".join(SUFFIXES)
        )
    return text


def _region(text: str) -> Region | None:
    """Return the region preferred, if any. One that is not configured is no error, but no help."""
    if not text:
        return None
    if not _REGION.fullmatch(text):
        raise InvalidRequest(
            "preferred_region cannot name a region",
            parameter="preferred_region",
            allowed="a name such as us-west-2",
        )
    return Region(text)


def _redirect(ready: Ready, wanted: Wanted, site: Site) -> Response:
    """302, for ever: the first clients take nothing else, and Bazel gives up at 308."""
    return Response(
        status_code=302,
        headers={
            "Location": ready.url,
            "Cache-Control": "private, no-store",
            "Link": ", ".join(_links(ready.archive, wanted, site)),
            "Archiver-Cache": "hit",
            "Archiver-Node": ready.archive.node,
            "Archiver-SHA256": ready.manifest.sha256,
            "Archiver-Size": str(ready.manifest.size_bytes),
            "Archiver-Region": ready.region,
            **_fallback(ready),
        },
    )


def _fallback(ready: Ready) -> dict[str, str]:
    """Name the region that the client is not sent to, though it is the one for it."""
    if ready.wanted in {None, ready.region}:
        return {}
    return {"Archiver-Region-Fallback": str(ready.wanted)}


def _links(archive: Archive, wanted: Wanted, site: Site) -> list[str]:
    links = [f'<{site.status_url(archive)}>; rel="describedby"']
    if wanted.rev != archive.node:
        links.append(f'<{_canonical_url(archive, site)}>; rel="canonical"')
    return links


def _canonical_url(archive: Archive, site: Site) -> str:
    """Return the address that means this archive for ever, whatever moves."""
    query = {"suffix": archive.suffix} | ({"subdir": archive.subdir} if archive.subdir else {})
    path = f"/archiver/{archive.source}/{quote(archive.repo)}/{archive.node}"
    return f"{site.public_url}{path}?{urlencode(query, safe='/')}"


def _accepted(pending: Pending, site: Site) -> Response:
    return JSONResponse(
        {"result": {}},
        status_code=202,
        headers={
            "Location": site.status_url(pending.archive),
            "Retry-After": str(site.retry_after_s),
            "Archiver-Cache": pending.outcome.value,
            "Archiver-Node": pending.archive.node,
        },
    )
