"""The location of an archive, or the task that builds it.

``/archiver/{source}/{repo}/{rev}`` takes the rest of the name from the query. With ``?rev=``, the
path ends with the repo. ``/get/…`` is for tools that take a file's name or format from the path,
``/sha256/…`` for tools that pin a checksum.
"""

import asyncio
import time
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from starlette.responses import PlainTextResponse, Response

from archiver.errors import InvalidRequest, UnknownRepo
from archiver.manifest_check import is_sha256
from archiver.model import FLAGS, SUFFIXES, Absent, Pending, Ready
from archiver.names import display_rev
from archiver.web.api.archive_reply import Render, hit_reply, insist, miss_reply, redirect
from archiver.web.api.client_request import (
    SHA256_ALLOWED,
    ClientRequest,
    OnMiss,
    client_request,
    parse_parameters,
    parse_region,
    parse_source,
    require_one_of,
)
from archiver.web.problems import problem
from archiver.web.reply import HIT, Hold, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query, split_path

DEFAULT_SUFFIX = "tar.gz"

DEFAULT_WAIT_S = 72
"""Tools that take names from paths save the body of a 202 as the file, or give up on it."""

CHECKSUM_CACHE_CONTROL = "private, max-age=86400, immutable"
"""A day and no longer, so that the checksum of a deleted archive disappears from caches."""

PATH_CHARACTERS = "/%!$&'()*+,;=:@~"
"""Characters that stay as they were sent in a path, besides letters and digits (RFC 3986)."""


async def get_archive(context: RequestContext) -> Reply | Hold:
    return await _fulfil(context, _parse_address(context))


async def get_file(context: RequestContext) -> Reply | Hold:
    """Redirect to the archive whose rev and suffix are the name of a file."""
    return await _fulfil(context, _parse_file(context))


async def get_checksum(context: RequestContext) -> Reply | Hold:
    """Return the archive's SHA-256 as ``sha256sum --check`` reads it, with the file's name."""
    request = _parse_file(context)
    request = replace(request, ending=f"{request.ending}.sha256")
    if request.on_miss is OnMiss.REDIRECT:  # the host would send the archive, not a checksum
        request = replace(request, on_miss=None)
    render = partial(_render_checksum, context.parameters["file"], request.archive_request.rev)
    return await _fulfil(context, request, render)


ABSENT_AFTER_S = 0.01
"""Several times what a lookup takes. Otherwise the time to a 404 would show a client that an
archive that it may not read has these bytes."""


async def get_by_sha256(context: RequestContext) -> Reply:
    """Redirect to an archive that has these bytes, if one is known. No task is created."""
    sha256 = context.parameters["digest"].lower()
    if not is_sha256(sha256):
        raise InvalidRequest("not a SHA-256", parameter="digest", allowed=SHA256_ALLOWED)
    query = parse_query(context.query, known=("preferred_region",))
    find = partial(
        context.state.archiver.locate,
        sha256,
        parse_region(query.get("preferred_region", "")),
        may_read=context.may_read,
        method=context.method,
        client_region=context.client.region,
    )
    began = time.monotonic()
    ready = await find()
    if ready is None:
        await asyncio.sleep(max(0.0, began + ABSENT_AFTER_S - time.monotonic()))
        return problem(context, "absent", "no archive with this SHA-256 is known")
    context.source = ready.archive.source
    rev = ready.archive.node
    return hit_reply(ready, rev, partial(redirect, context.state.config, rev), refind=find)


async def _fulfil(
    context: RequestContext, request: ClientRequest, render: Render | None = None
) -> Reply | Hold:
    """Return a hit as a redirect, which may be repeated, or as *render* shows it; or else a miss.

    Only a GET creates a task. Raises Unauthenticated or Forbidden if the client may not create one,
    and OtherBytes if it insists on other bytes.
    """
    wanted, access = request.archive_request, context.state.access
    rev = wanted.rev
    wants_task = context.method != "HEAD" and request.on_miss is not OnMiss.NONE
    create = wants_task and access.may_create(context.principal, wanted.source, wanted.repo)
    find = partial(
        context.state.archiver.request,
        request.archive_request,
        may_read=context.may_read,
        method=context.method,
        share=create,  # otherwise a client could store any number of revs, at no cost to itself
        client=context.share_holder,
        limited=not access.is_admin(context.principal, wanted.source, wanted.repo),
        client_region=context.client.region,
    )
    try:
        found = await find(create=create)
    except UnknownRepo as exc:
        raise UnknownRepo(f"{exc.message}{_hint(request)}") from exc
    refind = None if render else partial(find, create=False)
    render = render or partial(redirect, context.state.config, rev)
    if request.sha256:
        render = partial(insist, request.sha256, render)
    match found:
        case Ready() as ready:
            return hit_reply(ready, rev, render, refind=refind)
        case Pending() as pending:
            return await miss_reply(context, request, pending, render)
        case Absent() if wants_task:
            raise access.create_refusal(context.principal)
        case Absent():
            return problem(context, "absent", "the archive does not exist; a GET would create it")


def _hint(request: ClientRequest) -> str:
    """Return the other meaning of a path whose repo is unknown: a rev with a slash."""
    folder, slash, end = request.archive_request.repo.rpartition("/")
    if not slash or "rev" in request.query:
        return ""
    rev = display_rev(f"{end}/{request.archive_request.rev}")
    return f"; if {rev} is a revision of {folder}, pass it as {folder}{request.ending}?rev="


def _parse_address(context: RequestContext) -> ClientRequest:
    """Return the request in ``/archiver/…``. Raises InvalidRequest, UnknownSource."""
    raw = context.parameters["address"]
    source = parse_source(context, raw)
    query = parse_parameters(
        context, "rev", "subdir", "suffix", *FLAGS, "preferred_region", "sha256"
    )
    suffix = require_one_of(SUFFIXES, query.get("suffix", DEFAULT_SUFFIX), "suffix")
    segments = split_path(raw, rev_in_query="rev" in query)
    return client_request(context, source, segments, suffix, query)


def _parse_file(context: RequestContext) -> ClientRequest:
    """Return the request in ``/get/…``. Raises InvalidRequest, UnknownSource."""
    raw = context.parameters["file"]
    source = parse_source(context, raw)
    query = parse_parameters(context, "rev", "subdir", *FLAGS, "preferred_region", "sha256")
    segments = split_path(raw, rev_in_query="rev" in query)
    segments[-1], suffix = split_file_name(segments[-1])
    return client_request(
        context,
        source,
        segments,
        suffix,
        query,
        url=context.state.config.public_url + quote(context.raw_path, safe=PATH_CHARACTERS),
        default_wait_s=DEFAULT_WAIT_S,
        ending=f".{suffix}",
    )


def split_file_name(name: str) -> tuple[str, str]:
    """Return the parts of ``{rev}.{suffix}`` or ``{repo}.{suffix}``, with the longest suffix.

    So a rev may have dots, and even end like a suffix: ``A.zip.tar.gz`` is the rev ``A.zip``.
    Raises InvalidRequest.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        rev = name.removesuffix(f".{suffix}")
        if rev != name:
            return rev, suffix
    raise InvalidRequest(
        "the file name does not end in a supported suffix",
        parameter="suffix",
        allowed=", ".join(SUFFIXES),
    )


def _render_checksum(raw_path: str, rev: str, ready: Ready) -> Response:
    """Name the file as the URL does, still encoded, because ``curl -O`` saves it so."""
    raw_name = raw_path.rpartition("/")[2]
    immutable = rev == ready.archive.node
    return PlainTextResponse(
        f"{ready.manifest.sha256}  {raw_name}\n".encode("latin-1"),
        headers={
            "Cache-Control": CHECKSUM_CACHE_CONTROL if immutable else "no-store",
            "Archiver-Cache": HIT,
            "Archiver-Node": ready.archive.node,
        },
    )
