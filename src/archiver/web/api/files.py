"""``/get/…`` and ``/sha256/…``: archives by file name, and by the SHA-256 of their bytes.

For tools that take a file's name or format from the path, and for tools that pin a checksum.
"""

from dataclasses import replace
from functools import partial
from urllib.parse import quote

from starlette.responses import PlainTextResponse, Response

from archiver.errors import InvalidRequest
from archiver.manifest_check import is_sha256
from archiver.model import SUFFIXES, Ready
from archiver.web.api.archives import fulfil
from archiver.web.api.client_request import (
    ClientRequest,
    OnMiss,
    client_request,
    parse_parameters,
    parse_region,
    parse_source,
)
from archiver.web.api.hit_response import hit_reply, redirect_to
from archiver.web.problems import problem
from archiver.web.reply import HIT, Hold, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query, split_path

DEFAULT_WAIT_S = 72
"""Tools that take names from paths save the body of a 202 as the file, or give up on it."""

CHECKSUM_CACHE_CONTROL = "private, max-age=86400, immutable"
"""A day and no longer, so that the checksum of a deleted archive disappears from caches."""

PATH_CHARACTERS = "/%!$&'()*+,;=:@~"
"""Characters that stay as they were sent in a path, besides letters and digits (RFC 3986)."""


async def get_file(context: RequestContext) -> Reply | Hold:
    """Redirect to the archive whose rev and suffix are the name of a file."""
    request = parse(context)
    return await fulfil(context, request, redirect_to(context, request.archive_request.rev))


async def get_checksum(context: RequestContext) -> Reply | Hold:
    """Return the archive's SHA-256 as ``sha256sum --check`` reads it, with the file's name."""
    request = parse(context)
    request = replace(request, ending=f"{request.ending}.sha256")
    if request.on_miss is OnMiss.REDIRECT:  # the host would send the archive, not a checksum
        request = replace(request, on_miss=None)
    render = partial(_render_checksum, context.parameters["file"], request.archive_request.rev)
    return await fulfil(context, request, render, repeatable=False)


async def get_by_sha256(context: RequestContext) -> Reply:
    """Redirect to an archive that has these bytes, if one is known. No task is created."""
    sha256 = parse_sha256(context.parameters["digest"])
    query = parse_query(context.query, known=("preferred_region",))
    find = partial(
        context.state.archiver.locate,
        sha256,
        parse_region(query.get("preferred_region", "")),
        method=context.method,
        client_region=context.client.region,
    )
    ready = await find()
    if ready is None:
        return problem(context, "absent", "no archive with this SHA-256 is known")
    context.source = ready.archive.source
    rev = ready.archive.node
    return hit_reply(ready, rev, redirect_to(context, rev), refind=find)


def parse(context: RequestContext) -> ClientRequest:
    """Return the request that the file's path and the query describe.

    Raises:
        InvalidRequest: A part of the path or of the query is invalid.
        UnknownSource: The source is not configured.
    """
    raw = context.parameters["file"]
    source = parse_source(context, raw)
    query = parse_parameters(context, "rev", "subdir", "preferred_region")
    segments = split_path(raw, rev_in_query="rev" in query)
    segments[-1], suffix = split_file_name(segments[-1])
    return client_request(
        context,
        source,
        segments,
        suffix,
        query,
        path=quote(context.raw_path, safe=PATH_CHARACTERS),  # redirects must not rename the file
        default_wait_s=DEFAULT_WAIT_S,
        ending=f".{suffix}",
    )


def split_file_name(name: str) -> tuple[str, str]:
    """Return the parts of ``{rev}.{suffix}`` or ``{repo}.{suffix}``, with the longest suffix.

    So a rev may have dots, and even end like a suffix: ``A.zip.tar.gz`` is the rev ``A.zip``.

    Raises:
        InvalidRequest: The name has no supported suffix.
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


def parse_sha256(text: str) -> str:
    """Return a SHA-256 in lower case. Raises InvalidRequest."""
    if not is_sha256(text.lower()):
        raise InvalidRequest("not a SHA-256", parameter="digest", allowed="64 hexadecimal digits")
    return text.lower()


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
