"""From the bytes of a request target to text. Each part is decoded exactly once.

The input is ``raw_path`` and ``query_string`` as they were sent, never a URL that a framework
assembles, because the client's Host header is part of such a URL.
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from archiver.errors import InvalidRequest
from archiver.names import NAME_ALLOWED, REV_ALLOWED

TARGET_MAX_BYTES = 8192
"""Of path and query together. Targets of archives have at most about 3 kB, percent-encoded."""

SEGMENTS_MAX = 400
"""Slashes in a path. The key of an archive has no room for more."""

SHOWN_CHARS = 60

HOP = "hop"
"""A parameter that only our own redirects set, so messages do not list it as allowed."""

_STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")

SECONDS = re.compile(r"[0-9]{1,9}")


def split_path(raw: str, *, rev_in_query: bool = False) -> list[str]:
    """Return the decoded segments behind the source in ``{source}/{repo…}/{rev}``.

    They are not checked yet. With *rev_in_query*, all of them belong to the repo. Only a rev may
    have encoded slashes, and no rev a segment ``..``. Raises InvalidRequest.
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
    """Return the rev in a path.

    Clients and proxies resolve ``..`` in a path, even an encoded one, so its meaning would depend
    on them.
    """
    rev = decode(raw.encode("latin-1"), "rev")
    if {".", ".."}.intersection(rev.split("/")):
        raise InvalidRequest(
            "rev has a segment '.' or '..', which clients and proxies remove from a path: "
            "use ?rev= or the node of the changeset",
            parameter="rev",
            allowed=REV_ALLOWED,
        )
    return rev


def parse_query(raw: bytes, *, known: Sequence[str]) -> dict[str, str]:
    """Return the form-decoded parameters of a query. Empty pairs are legal, as in ``?&a=b``.

    Raises InvalidRequest if a parameter is not *known*, or is repeated.
    """
    parameters: dict[str, str] = {}
    for pair in filter(None, raw.replace(b"+", b" ").split(b"&")):
        raw_name, _, raw_value = pair.partition(b"=")
        name = decode(raw_name, "query")
        if name not in known:
            raise InvalidRequest(
                f"unknown parameter {name[:SHOWN_CHARS]!r}",
                parameter=name[:SHOWN_CHARS],
                allowed=", ".join(name for name in known if name != HOP) or "no parameter",
            )
        if name in parameters:
            raise InvalidRequest(f"{name} is repeated", parameter=name, allowed=f"one {name}")
        parameters[name] = decode(raw_value, name)
    return parameters


def parse_number(query: Mapping[str, str], name: str, allowed: str) -> int | None:
    """Return the whole number in the parameter *name*, if present. Raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return None
    if not SECONDS.fullmatch(text):
        raise InvalidRequest(f"{name} must be a whole number", parameter=name, allowed=allowed)
    return int(text)


def decode(raw: bytes, parameter: str) -> str:
    """Return *raw* percent-decoded once.

    Raises InvalidRequest if it is not UTF-8, or has a ``%`` without two hex digits, which decoders
    treat differently.
    """
    if b"%" in raw:
        if _STRAY_PERCENT.search(raw):
            raise InvalidRequest(
                f"{parameter} has a % that two hex digits do not follow",
                parameter=parameter,
                allowed="percent-encoded UTF-8, with %25 for a %",
            )
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{parameter} is not UTF-8", parameter=parameter, allowed="percent-encoded UTF-8"
        ) from None
