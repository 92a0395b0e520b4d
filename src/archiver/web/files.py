"""``/get/…`` and ``/sha256/…``: archives under the names of files, and under that of their bytes.

For tools that take a file's name, or its format, from the path; and for those that know a digest.
"""

from dataclasses import replace
from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from archiver.errors import InvalidRequest
from archiver.manifest_check import is_sha256
from archiver.model import SUFFIXES, ArchiveRequest, Ready
from archiver.web import fastlane
from archiver.web.archives import fulfil
from archiver.web.asks import (
    Ask,
    OnMiss,
    ask,
    parse_parameters,
    parse_region,
    parse_source,
    place,
    want,
)
from archiver.web.exchange import exchange
from archiver.web.problems import problem
from archiver.web.redirects import REDIRECT, Form, hit
from archiver.web.site import State
from archiver.web.targets import decode, parse_query, split_place

DEFAULT_WAIT_S = 72
"""Tools that take names from paths save the body of a 202 as the file, or give up on it."""

CHECKSUM_CACHE_CONTROL = "private, max-age=86400, immutable"
"""For a day and not for ever: who takes an archive away wants its digest forgotten some time."""

PATH_CHARACTERS = "/%!$&'()*+,;=:@~"
"""What a path may have besides letters and digits (RFC 3986), as it was sent."""


async def file(request: Request[State]) -> Response:
    """Redirect to the archive whose rev and suffix are the name of a file."""
    return await fulfil(request, parse(request), REDIRECT)


async def checksum(request: Request[State]) -> Response:
    """Tell the archive's digest as ``sha256sum --check`` reads it, under the name of the file."""
    asked = parse(request)
    asked = replace(asked, ending=f"{asked.ending}.sha256")
    if asked.on_miss is OnMiss.REDIRECT:  # no host has this line: its archive would be saved as it
        asked = replace(asked, on_miss=None)
    return await fulfil(request, asked, Form(render=_checksum))


async def by_digest(request: Request[State]) -> Response:
    """Redirect to an archive that has these bytes, if one is known; nothing is ever brought."""
    sha256 = parse_sha256(request.path_params["digest"])
    query = parse_query(request.scope["query_string"], known=("preferred_region",))
    region = parse_region(query.get("preferred_region", ""))
    archiver, near = request.state["archiver"], fastlane.region(request.scope)
    look = partial(archiver.locate, sha256, region, method=request.method, client_region=near)
    ready = await look()
    if ready is None:
        return problem(request, "absent", "no archive is known here that has this digest")
    exchange(request).source = ready.archive.source
    return hit(request, ready, _itself(ready), REDIRECT, look=look)


def parse(request: Request[State]) -> Ask:
    """Return what the file's address and the query ask for.

    Raises:
        InvalidRequest: A part of the path or of the query is not what it has to be.
        UnknownSource: There is no such source.
    """
    raw = request.path_params["file"]
    source = parse_source(request, raw)
    query = parse_parameters(request, "rev", "subdir", "preferred_region")
    segments = split_place(raw, rev_in_query="rev" in query)
    segments[-1], suffix = split_file_name(segments[-1])
    repo, rev = place(segments, query)
    wanted = want(source, repo, rev, suffix, query)
    path = quote(request.scope["raw_path"], safe=PATH_CHARACTERS)  # hops must not rename the file
    return ask(
        request, wanted, query, path=path, default_wait_s=DEFAULT_WAIT_S, ending=f".{suffix}"
    )


def split_file_name(name: str) -> tuple[str, str]:
    """Return rev, or end of a repo, and suffix of ``{rev}.{suffix}``: the longest suffix there is.

    So a rev may have dots, and even end like a suffix: ``A.zip.tar.gz`` is the rev ``A.zip``.

    Raises:
        InvalidRequest: It ends in no suffix.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        rev = name.removesuffix(f".{suffix}")
        if rev != name:
            return rev, suffix
    raise InvalidRequest(
        "the name does not end in a suffix that can be made",
        parameter="suffix",
        allowed=", ".join(SUFFIXES),
    )


def parse_sha256(raw: str) -> str:
    """Return a digest in lower case, as it stands everywhere here. Raises InvalidRequest."""
    text = decode(raw.encode("latin-1"), "digest").lower()
    if not is_sha256(text):
        raise InvalidRequest(
            "digest is no SHA-256", parameter="digest", allowed="64 hexadecimal digits"
        )
    return text


def _checksum(request: Request[State], ready: Ready, wanted: ArchiveRequest) -> Response:
    """Name the file as the URL does, still encoded: that is what ``curl -O`` saves it under."""
    raw_name = request.path_params["file"].rpartition("/")[2]
    forever = wanted.rev == ready.archive.node
    return PlainTextResponse(
        f"{ready.manifest.sha256}  {raw_name}\n".encode("latin-1"),
        headers={
            "Cache-Control": CHECKSUM_CACHE_CONTROL if forever else "no-store",
            "Archiver-Cache": "hit",
            "Archiver-Node": ready.archive.node,
        },
    )


def _itself(ready: Ready) -> ArchiveRequest:
    archive = ready.archive
    return ArchiveRequest(
        source=archive.source,
        repo=archive.repo,
        rev=archive.node,
        subdir=archive.subdir,
        suffix=archive.suffix,
    )
