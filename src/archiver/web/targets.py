"""From the bytes of a request target to text: each part decoded once, and none made whole.

Read from ``raw_path`` and ``query_string``, as they were sent. ``request.url`` is never used: the
client's Host header is part of it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from archiver.errors import InvalidRequest
from archiver.names import NAME_ALLOWED, REV_ALLOWED
from archiver.web.problems import problem

TARGET_MAX_BYTES = 8192
"""Of path and query together. Addresses of archives have at most some 3 kB, percent-encoded."""

SEGMENTS_MAX = 400
"""Of a path. No repo has room for more in a key."""

SHOWN_CHARS = 60

HOP = "hop"
"""The parameter that only our redirects set, so it is not named among those that are allowed."""

_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")

SECONDS = re.compile(r"[0-9]{1,9}")


class ShortTargets:
    """Answers requests whose target is too long. No other code gets to read them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_too_long(scope):
            detail = f"path and query have more than {TARGET_MAX_BYTES} bytes together"
            response = problem(Request(scope), "target_too_long", detail)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class LiteralPaths:
    """Has routes matched on the path as it was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            take_literally(scope)
        await self._app(scope, receive, send)


def take_literally(scope: Scope) -> None:
    """Have *scope* routed by the path as it was sent, so that no ``%2F`` moves it to another route.

    Path parameters are then raw: percent-encoded, one character per byte.
    """
    scope["path"] = scope["raw_path"].decode("latin-1")


def is_too_long(scope: Scope) -> bool:
    """Tell whether the request's target is longer than any that is answered here."""
    return len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_MAX_BYTES


def split_place(raw: str, *, rev_in_query: bool = False) -> list[str]:
    """Return the segments behind the source in ``{source}/{repo…}/{rev}``, each decoded once.

    They may still be bad names. With *rev_in_query*, all of them are the repo's, and none is a rev,
    which alone may have encoded slashes.

    Raises:
        InvalidRequest: A segment is not UTF-8, hides a slash, or is a rev that no path can have.
    """
    if raw.count("/") > SEGMENTS_MAX:
        raise InvalidRequest("repo is too long", parameter="repo", allowed=NAME_ALLOWED)
    *repo, last = raw.partition("/")[2].split("/")
    segments = [_decode_segment(segment, "repo") for segment in repo]
    return [*segments, _decode_segment(last, "repo") if rev_in_query else _decode_rev(last)]


def decode_source(raw: str) -> str:
    """Return the first segment of *raw*, the name of a source. Raises InvalidRequest."""
    return _decode_segment(raw.partition("/")[0], "source")


def _decode_segment(raw: str, parameter: str) -> str:
    text = decode(raw.encode("latin-1"), parameter)
    if "/" in text:
        raise InvalidRequest(
            f"{parameter} has an encoded slash", parameter=parameter, allowed=NAME_ALLOWED
        )
    return text


def _decode_rev(raw: str) -> str:
    """Return a rev that stands in a path.

    Clients and proxies resolve ``..`` in a path, even an encoded one, so that it means something
    else to each of them.
    """
    rev = decode(raw.encode("latin-1"), "rev")
    if {".", ".."}.intersection(rev.split("/")):
        raise InvalidRequest(
            "rev has a segment '.' or '..', which clients and proxies remove from a path: "
            "give it as ?rev=, or ask for the changeset by its node",
            parameter="rev",
            allowed=REV_ALLOWED,
        )
    return rev


def parse_query(raw: bytes, *, known: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a query, form-decoded. Empty pairs are legal, as in ``?&a=b``.

    Raises:
        InvalidRequest: One is unknown, stands there twice, or is not UTF-8.
    """
    parameters: dict[str, str] = {}
    for pair in filter(None, raw.replace(b"+", b" ").split(b"&")):
        raw_name, _, raw_value = pair.partition(b"=")
        name = decode(raw_name, "query")
        _check_parameter(name, parameters, known)
        parameters[name] = decode(raw_value, name)
    return parameters


def whole(query: Mapping[str, str], name: str, allowed: str) -> int | None:
    """Return the parameter *name* as a number, if it is given. Raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return None
    if not SECONDS.fullmatch(text):
        raise InvalidRequest(f"{name} is no such number", parameter=name, allowed=allowed)
    return int(text)


def _check_parameter(name: str, seen: Collection[str], known: Sequence[str]) -> None:
    if name not in known:
        raise InvalidRequest(
            f"there is no parameter {name[:SHOWN_CHARS]!r} here",
            parameter=name[:SHOWN_CHARS],
            allowed=", ".join(name for name in known if name != HOP) or "no parameter",
        )
    if name in seen:
        raise InvalidRequest(f"{name} is given twice", parameter=name, allowed=f"one {name}")


def decode(raw: bytes, parameter: str) -> str:
    """Return *raw* percent-decoded once.

    Raises:
        InvalidRequest: It is not UTF-8, or has a ``%`` that encodes nothing, which some would read
            as itself and others not at all.
    """
    if _STRAY_PERCENT.search(raw):
        raise InvalidRequest(
            f"{parameter} has a % without two hex digits behind it",
            parameter=parameter,
            allowed="percent-encoded UTF-8, in which %25 is a %",
        )
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{parameter} is not UTF-8", parameter=parameter, allowed="percent-encoded UTF-8"
        ) from None
