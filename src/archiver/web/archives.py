"""``/archiver/{source}/{repo}/{rev}``: where an archive is, or the task that brings it there."""

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

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
from archiver.web.misses import Ask, OnMiss, outwait, parse_on_miss
from archiver.web.problems import problem
from archiver.web.site import Site, State
from archiver.web.targets import parse_query, split_address
from archiver.web.waiting import parse_patience

PARAMETERS = ("subdir", "suffix", "preferred_region", "wait", "hop", "on_miss")
DEFAULT_SUFFIX = "tar.gz"

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


async def archive(request: Request[State]) -> Response:
    """Redirect to the archive, or accept the task of bringing it; HEAD brings nothing about."""
    archiver, ask = request.state["archiver"], parse(request)
    create = request.method != "HEAD" and ask.on_miss is not OnMiss.NONE
    near = fastlane.region(request.scope)
    found = await archiver.request(
        ask.wanted, method=request.method, create=create, client_region=near
    )
    match found:
        case Ready():
            return _hit(request, found, ask.wanted)
        case Pending():
            return await _missed(request, ask, found)
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


async def _missed(request: Request[State], ask: Ask, pending: Pending) -> Response:
    site = request.state["site"]
    answer = await outwait(request, ask, pending, lambda ready: _redirect(ready, ask.wanted, site))
    if ask.patience.preferred:
        answer.headers["Preference-Applied"] = ask.patience.applied
    return answer


def parse(request: Request[State]) -> Ask:
    """Return what is asked for; every 400 of this route arises here.

    Raises:
        InvalidRequest: A part of the path or of the query is not what it has to be.
        UnknownSource: There is no such source.
    """
    wanted, query = _wanted(request)
    site = request.state["site"]
    return Ask(
        wanted=wanted,
        address=f"{site.public_url}{_path(wanted, wanted.rev)}",
        query=_query(wanted),
        patience=parse_patience(query, request.headers, site.holding),
        on_miss=parse_on_miss(query.get("on_miss")),
    )


def _wanted(request: Request[State]) -> tuple[Wanted, Mapping[str, str]]:
    name, repo, rev = split_address(request.path_params["address"])
    source = request.state["archiver"].source(check_name(name, "source"))
    exchange(request).source = source.name
    query = parse_query(request.scope["query_string"], known=PARAMETERS)
    wanted = Wanted(
        source=source.name,
        repo=repo,
        rev=rev,
        subdir=query.get("subdir", ""),
        suffix=_suffix(query.get("suffix", DEFAULT_SUFFIX)),
        preferred_region=_region(query.get("preferred_region", "")),
    )
    return wanted, query


def _path(wanted: Wanted | Archive, rev: str) -> str:
    return f"/archiver/{wanted.source}/{quote(wanted.repo)}/{quote(rev, safe='')}"


def _query(wanted: Wanted) -> dict[str, str]:
    query = {"suffix": wanted.suffix, "subdir": wanted.subdir}
    query["preferred_region"] = wanted.preferred_region or ""
    return {name: value for name, value in query.items() if value}


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
    path = _path(archive, archive.node)
    return f"{site.public_url}{path}?{urlencode(query, safe='/')}"
