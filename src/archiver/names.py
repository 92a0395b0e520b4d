"""Names of sources, repos, revs and subdirs: which are allowed, and how a key holds them.

No key holds a rev, so a rev may be whatever its host accepts as a name.
"""

import re
from functools import lru_cache

from archiver.errors import InvalidRequest

SEPARATOR = "-"

SEGMENT_MAX_BYTES = 255
"""Of a segment as it stands in a key: what file systems (and so file-backed S3 servers) allow."""

NAME_MAX_BYTES = 700
"""Of a name as it stands in a key: no key has room for a longer one."""

NAMES_MAX = 2048
"""Names that were checked and escaped lately: an installation's repos, subdirs and branches. Only
allowed ones are remembered, so that they take 13 MB at the most, and mostly some 100 kB."""

NAME_ALLOWED = (
    "segments of 1 to 255 printable characters between slashes; not '.', '..' or '-'; no backslash"
)

REV_MAX_BYTES = 1024
"""Of a rev in UTF-8. No key holds one; hosts set no limit, and the longest known have some 100."""

REV_ALLOWED = (
    f"a node (40 or 64 hex digits), or a name of 1 to {REV_MAX_BYTES} bytes of UTF-8 "
    "without control characters"
)

SHOWN_CHARS = 100
"""Of a rev in a message."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SHOWN_BYTES = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_ESCAPE = re.compile(r"~([0-9A-F]{2})")


def require_name(text: str, parameter: str) -> str:
    """Return *text* if it may name a source, a repo or a subdir: slash-separated segments.

    Raises:
        InvalidRequest: It may not; *parameter* is the one to blame.
    """
    try:
        _require_allowed(text)
    except _NotAllowed as exc:
        raise InvalidRequest(
            f"{parameter} {exc}", parameter=parameter, allowed=NAME_ALLOWED
        ) from None
    return text


def require_rev(text: str) -> str:
    """Return *text* if a rev may be called so. It may have slashes, and whatever a host allows.

    Raises:
        InvalidRequest: It may not.
    """
    if problem := _rev_problem(text):
        raise InvalidRequest(
            f"rev {problem}: ask for the changeset by its node",
            parameter="rev",
            allowed=REV_ALLOWED,
        )
    return text


def _rev_problem(text: str) -> str | None:
    if not text:
        return "is empty"
    if _CONTROL.search(text):
        return "has a control character"
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return "has a character that no UTF-8 can hold"
    if size_bytes > REV_MAX_BYTES:
        return f"is longer than {REV_MAX_BYTES} bytes"
    return None


def display_rev(rev: str) -> str:
    """Return *rev* as a message shows it: one that is short and changes no terminal."""
    text = rev if rev.isprintable() else ascii(rev)[1:-1]
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


class _NotAllowed(Exception):
    """A text that may not name anything. Its own text says why."""


@lru_cache(NAMES_MAX)
def _require_allowed(text: str) -> None:
    """Return if *text* may name something. What is raised instead is not cached."""
    if len(text) > NAME_MAX_BYTES:
        raise _NotAllowed("is too long")
    if problem := _problem(text):
        raise _NotAllowed(problem)
    if len(_escape_all(text)) > NAME_MAX_BYTES:
        raise _NotAllowed("is too long")


def _problem(text: str) -> str | None:
    """Return why *text* may not name anything, if it may not."""
    for segment in text.split("/"):
        if segment in {"", ".", "..", SEPARATOR}:
            return f"has the segment {segment!r}"
        if not segment.isprintable():
            return "has a control character, or one that is not printable"
        if "\\" in segment:
            return "has a backslash"
        if len(_escape(segment)) > SEGMENT_MAX_BYTES:
            return "has a segment that is too long"
    return None


@lru_cache(NAMES_MAX)
def escape_name(name: str) -> str:
    """Return *name*, which is an allowed one, as it stands in a key."""
    return _escape_all(name)


def _escape_all(name: str) -> str:
    return "/".join(map(_escape, name.split("/")))


def _escape(segment: str) -> str:
    """Write a segment with the characters that every S3 server and every URL keep as they are.

    ``~`` and not ``%`` marks an escape, so that a key in a URL is not escaped a second time.
    """
    return _UNSAFE.sub(lambda m: "".join(f"~{b:02X}" for b in m[0].encode()), segment)


def unescape_segment(segment: str) -> str:
    raw = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), segment)
    return raw.encode("latin-1").decode()


def display_path(path: bytes) -> str:
    """Return the path of a file as it may be shown to anyone: short, and in ASCII."""
    text = path[:SHOWN_BYTES].decode(errors="backslashreplace")
    return ascii(text) + ("..." if len(path) > SHOWN_BYTES else "")
