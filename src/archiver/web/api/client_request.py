"""A parsed request for an archive, and how a miss may be answered."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode

from archiver.errors import InvalidRequest
from archiver.manifest_check import is_sha256
from archiver.model import ArchiveRequest, Region
from archiver.names import display_rev, require_name
from archiver.purge import REASON_ALLOWED, is_reason
from archiver.web.request_context import RequestContext
from archiver.web.request_target import HOP, decode_source, parse_query
from archiver.web.waiting.wait_preference import WaitPreference, parse_wait_preference

MISS_PARAMETERS = ("wait", HOP, "on_miss")
"""Parameters that do not change which archive is requested."""

SHA256_ALLOWED = "64 hexadecimal digits"

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class OnMiss(StrEnum):
    """Values of ``on_miss``: redirect to the host instead of waiting, or create no task."""

    REDIRECT = "redirect"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """``url`` and ``query`` are our own spelling of the requested URL, without MISS_PARAMETERS.

    ``ending`` is the part of the path behind the rev, or behind the repo if the rev is in the
    query. With ``sha256``, the client accepts no other bytes.
    """

    archive_request: ArchiveRequest
    url: str
    query: Mapping[str, str]
    wait: WaitPreference
    on_miss: OnMiss | None
    sha256: str | None = None
    ending: str = ""

    @property
    def accepts_202(self) -> bool:
        """Whether a 202 is a possible response: the client has not asked for anything else."""
        return self.wait.respond_async or (self.wait.wait_s is None and self.on_miss is None)

    def next_url(self, left: WaitPreference) -> str:
        """Return the URL of the same request for a client that has *left* to wait."""
        query = {**self.query, "wait": str(left.wait_s), HOP: str(left.hop)}
        if self.on_miss:
            query["on_miss"] = self.on_miss.value
        return f"{self.url}?{urlencode(query, safe='/')}"


def client_request(
    context: RequestContext,
    source: str,
    segments: Sequence[str],
    suffix: str,
    query: Mapping[str, str],
    *,
    url: str | None = None,
    default_wait_s: int | None = None,
    ending: str = "",
) -> ClientRequest:
    """Return the request for the repo in *segments*, and the rev in *query* or behind the repo.

    *url* defaults to our own spelling of it. Raises InvalidRequest; and UnknownRepo if the client
    may not read the repo.
    """
    repo, rev = (segments, query["rev"]) if "rev" in query else (segments[:-1], segments[-1])
    request = ArchiveRequest(
        source=source,
        repo="/".join(repo),
        rev=rev,
        subdir=query.get("subdir", ""),
        suffix=suffix,
        submodules=parse_flag(query, "submodules"),
        lfs=parse_flag(query, "lfs"),
        preferred_region=parse_region(query.get("preferred_region", "")),
    )
    context.state.access.require_repo(context.principal, source, request.repo)
    config = context.state.config
    if url is None:
        url = config.repo_url(request) if "rev" in query else config.archive_url(request, rev)
    return ClientRequest(
        archive_request=request,
        url=url,
        query={name: text for name, text in query.items() if text and name not in MISS_PARAMETERS},
        wait=parse_wait_preference(
            query, context.header(b"prefer"), config.wait_limits, default_s=default_wait_s
        ),
        on_miss=_parse_on_miss(query),
        sha256=parse_sha256(query),
        ending=ending,
    )


def parse_parameters(context: RequestContext, *known: str) -> dict[str, str]:
    """Return the query's parameters: *known* ones and MISS_PARAMETERS. Raises InvalidRequest."""
    return parse_query(context.query, known=(*known, *MISS_PARAMETERS))


def parse_source(context: RequestContext, raw: str) -> str:
    """Return the source that the path *raw* begins with.

    Raises InvalidRequest, UnknownSource, or Unauthenticated.
    """
    name = require_name(decode_source(raw), "source")
    context.state.access.require_source(context.principal, name)
    context.source = context.state.archiver.source(name).name
    return context.source


def require_one_of(allowed: Sequence[str], text: str, parameter: str) -> str:
    """Return *text*. Raises InvalidRequest if it is not *allowed*."""
    if text not in allowed:
        raise InvalidRequest(
            f"unsupported {parameter} '{display_rev(text)}'",
            parameter=parameter,
            allowed=", ".join(allowed),
        )
    return text


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """Return whether the parameter *name* is set. Raises InvalidRequest unless it is 1 then."""
    return name in query and require_one_of(("1",), query[name], name) == "1"


def require_reason(query: Mapping[str, str]) -> str:
    """Return the reason of an operator. Raises InvalidRequest if there is none."""
    text = query.get("reason", "")
    if not is_reason(text):
        raise InvalidRequest(
            "this needs a reason, for the log", parameter="reason", allowed=REASON_ALLOWED
        )
    return text


def parse_region(text: str) -> Region | None:
    """Return the preferred region, if any; not always a configured one. Raises InvalidRequest."""
    if not text:
        return None
    if not _REGION.fullmatch(text):
        raise InvalidRequest(
            f"'{display_rev(text)}' cannot be the name of a region",
            parameter="preferred_region",
            allowed="a name such as us-west-2",
        )
    return Region(text)


def _parse_on_miss(query: Mapping[str, str]) -> OnMiss | None:
    if "on_miss" not in query:
        return None
    on_miss = OnMiss(require_one_of(tuple(OnMiss), query["on_miss"], "on_miss"))
    if on_miss is OnMiss.REDIRECT and "sha256" in query:
        raise InvalidRequest(
            "a redirect to the host cannot promise a SHA-256",
            parameter="on_miss",
            allowed="none, together with sha256",
        )
    return on_miss


def parse_sha256(query: Mapping[str, str]) -> str | None:
    """Return the bytes that the client insists on, if any. Raises InvalidRequest."""
    if "sha256" not in query:
        return None
    if not is_sha256(sha256 := query["sha256"].lower()):
        raise InvalidRequest("not a SHA-256", parameter="sha256", allowed=SHA256_ALLOWED)
    return sha256
