"""What a client asks for: an archive, and what it will put up with if that is not there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, urlencode

from starlette.requests import Request

from archiver.errors import InvalidRequest
from archiver.model import SUFFIXES, Archive, ArchiveRequest, Region
from archiver.names import require_name
from archiver.web.exchange import exchange
from archiver.web.site import State
from archiver.web.targets import HOP, decode_source, parse_query
from archiver.web.waiting import Patience, parse_patience

OF_A_MISS = ("wait", HOP, "on_miss")
"""Parameters that change nothing of what is wanted."""

_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class OnMiss(StrEnum):
    """What ``on_miss`` may be: where to go instead of waiting, or that nothing is to be brought."""

    REDIRECT = "redirect"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A parsed request: what is wanted, and what a client will put up with if it is not there.

    ``address`` and ``query`` make the URL that was asked for, as we would have written it, without
    what is said here of the miss. ``ending`` is what the path has behind the rev, or behind the
    repo if the query names the rev.
    """

    wanted: ArchiveRequest
    address: str
    query: Mapping[str, str]
    patience: Patience
    on_miss: OnMiss | None
    ending: str = ""

    @property
    def takes_202(self) -> bool:
        """Whether the client knows what a 202 is. Who asks for anything else gets none."""
        return self.patience.or_202 or (self.patience.wait_s is None and self.on_miss is None)

    def again(self, left: Patience) -> str:
        """Return the URL of the same request by who has *left* to wait."""
        query = {**self.query, "wait": str(left.wait_s), HOP: str(left.hop)}
        if self.on_miss:
            query["on_miss"] = self.on_miss.value
        return f"{self.address}?{urlencode(query, safe='/')}"


def ask(
    request: Request[State],
    wanted: ArchiveRequest,
    query: Mapping[str, str],
    *,
    path: str,
    default_wait_s: int | None = None,
    ending: str = "",
) -> Ask:
    """Return what a request for *wanted* at *path* asks for. Raises InvalidRequest."""
    site = request.state["site"]
    return Ask(
        wanted=wanted,
        address=f"{site.public_url}{path}",
        query={name: text for name, text in query.items() if text and name not in OF_A_MISS},
        patience=parse_patience(query, request.scope, site.holding, default_s=default_wait_s),
        on_miss=_parse_on_miss(query.get("on_miss")),
        ending=ending,
    )


def parse_parameters(request: Request[State], *own: str) -> dict[str, str]:
    """Return the query of a request that may have *own* parameters and those of a miss.

    Raises:
        InvalidRequest: It has others.
    """
    return parse_query(request.scope["query_string"], known=(*own, *OF_A_MISS))


def parse_source(request: Request[State], raw: str) -> str:
    """Return the source that the path *raw* begins with. Raises InvalidRequest, UnknownSource."""
    name = require_name(decode_source(raw), "source")
    source = request.state["archiver"].source(name)
    exchange(request).source = source.name
    return source.name


def place(segments: Sequence[str], query: Mapping[str, str]) -> tuple[str, str]:
    """Return repo and rev: the rev is what *query* says, else the last of *segments*."""
    if "rev" in query:
        return "/".join(segments), query["rev"]
    return "/".join(segments[:-1]), segments[-1]


def want(source: str, repo: str, rev: str, suffix: str, query: Mapping[str, str]) -> ArchiveRequest:
    """Return what the parts of a path and a query ask for. Raises InvalidRequest."""
    return ArchiveRequest(
        source=source,
        repo=repo,
        rev=rev,
        subdir=query.get("subdir", ""),
        suffix=suffix,
        preferred_region=parse_region(query.get("preferred_region", "")),
    )


def parse_suffix(text: str) -> str:
    """Return *text* if it is a format. Raises InvalidRequest."""
    if text not in SUFFIXES:
        raise InvalidRequest(
            "suffix is none that can be made", parameter="suffix", allowed=", ".join(SUFFIXES)
        )
    return text


def parse_region(text: str) -> Region | None:
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


def _parse_on_miss(text: str | None) -> OnMiss | None:
    if text is None:
        return None
    try:
        return OnMiss(text)
    except ValueError:
        raise InvalidRequest(
            "on_miss is nothing that can be done", parameter="on_miss", allowed="redirect, none"
        ) from None


def repo_path(wanted: ArchiveRequest | Archive) -> str:
    """Return the path of all archives of a repo, for those whose query names the rev."""
    return f"/archiver/{wanted.source}/{quote(wanted.repo)}"


def archive_path(wanted: ArchiveRequest | Archive, rev: str) -> str:
    """Return the path of an archive, but for what stands in its query."""
    return f"{repo_path(wanted)}/{quote(rev, safe='')}"
