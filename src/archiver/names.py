"""Names of sources, repos, revs and subdirs: which may be, and how they stand in a key."""

import re
from functools import lru_cache

from archiver.errors import InvalidRequest

SEPARATOR = "-"

SEGMENT_MAX_BYTES = 255
"""Of a segment as it stands in a key: what file systems (and so file-backed S3 servers) allow."""

NAMES_MAX = 4096
"""Names that were checked and escaped lately: an installation's repos, subdirs and branches."""

NAME_ALLOWED = (
    "segments of 1 to 255 printable characters between slashes; not '.', '..' or '-'; "
    "none of ? # @ % and backslash"
)

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_FORBIDDEN = frozenset("?#@\\%")
_ESCAPE = re.compile(r"~([0-9A-F]{2})")


def check_name(text: str, parameter: str) -> str:
    """Return *text* if it may name a repo, a rev or a subdir: slash-separated segments.

    Raises:
        InvalidRequest: It may not; *parameter* is the one to blame.
    """
    if problem := _problem(text):
        raise InvalidRequest(f"{parameter} {problem}", parameter=parameter, allowed=NAME_ALLOWED)
    return text


@lru_cache(NAMES_MAX)
def _problem(text: str) -> str | None:
    """Return why *text* may not name anything, if it may not."""
    for segment in text.split("/"):
        if segment in {"", ".", "..", SEPARATOR}:
            return f"has the segment {segment!r}"
        if not segment.isprintable():
            return "has a control character, or one that is not printable"
        if _FORBIDDEN.intersection(segment):
            return "has one of the characters ? # @ % and backslash"
        if len(_escape(segment)) > SEGMENT_MAX_BYTES:
            return "has a segment that is too long"
    return None


@lru_cache(NAMES_MAX)
def escaped(name: str) -> str:
    """Return *name* as it stands in a key."""
    return "/".join(map(_escape, name.split("/")))


def _escape(segment: str) -> str:
    """Write a segment with the characters that every S3 server and every URL keep as they are.

    ``~`` and not ``%`` marks an escape, so that a key in a URL is not escaped a second time.
    """
    return _UNSAFE.sub(lambda m: "".join(f"~{b:02X}" for b in m[0].encode()), segment)


def unescape(segment: str) -> str:
    raw = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), segment)
    return raw.encode("latin-1").decode()
