"""Names of sources, repos, revs and subdirs: which are allowed, and how keys escape them.

Keys do not contain revs, so a rev may be any name that its host accepts.
"""

import re
from functools import lru_cache

from archiver.errors import InvalidRequest

SEPARATOR = "-"

SEGMENT_MAX_BYTES = 255
"""Size of an escaped segment: the limit of file systems, and so of file-backed S3 servers."""

NAME_MAX_BYTES = 700
"""Size of an escaped name: no key has room for a longer one."""

NAMES_MAX = 2048
"""Cached checks and escapes of names: repos, subdirs and branches. Only allowed names are cached,
which bounds the cache to 13 MB; it usually has some 100 kB."""

NAME_ALLOWED = (
    "segments of 1 to 255 printable characters between slashes; not '.', '..' or '-'; no backslash"
)

REV_MAX_BYTES = 1024
"""Size of a rev in UTF-8. Hosts set no limit; the longest known revs have some 100 bytes."""

REV_ALLOWED = (
    f"a node (40 or 64 hex digits), or a name of 1 to {REV_MAX_BYTES} bytes of UTF-8 "
    "without control characters"
)

DISPLAY_MAX = 100
"""Length of a rev in characters, or of a path in bytes, in a message."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_ESCAPE = re.compile(r"~([0-9A-F]{2})")


@lru_cache(NAMES_MAX)
def require_name(text: str, parameter: str) -> str:
    """Return *text* if it is an allowed name of a source, repo or subdir. Errors are not cached.

    Raises InvalidRequest, which names *parameter*.
    """
    if problem := _name_problem(text):
        raise InvalidRequest(f"{parameter} {problem}", parameter=parameter, allowed=NAME_ALLOWED)
    return text


def is_name(text: str) -> bool:
    """Return whether *text* is an allowed name of a source, repo or subdir."""
    return _name_problem(text) is None


def require_rev(text: str) -> str:
    """Return *text* if it is an allowed rev. Raises InvalidRequest."""
    if problem := _rev_problem(text):
        raise InvalidRequest(
            f"rev {problem}: request the changeset by its node",
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
        return "has a character that cannot be encoded in UTF-8"
    if size_bytes > REV_MAX_BYTES:
        return f"is longer than {REV_MAX_BYTES} bytes"
    return None


def display_rev(rev: str) -> str:
    """Return *rev* for a message: short, and without terminal control characters."""
    text = rev if rev.isprintable() else ascii(rev)[1:-1]
    return text if len(text) <= DISPLAY_MAX else f"{text[:DISPLAY_MAX]}…"


def _name_problem(text: str) -> str | None:
    if len(text) > NAME_MAX_BYTES:
        return "is too long"
    for segment in text.split("/"):
        if segment in {"", ".", "..", SEPARATOR}:
            return f"has the segment {segment!r}"
        if not segment.isprintable():
            return "has a control or another unprintable character"
        if "\\" in segment:
            return "has a backslash"
        if len(_escape(segment)) > SEGMENT_MAX_BYTES:
            return "has a segment that is too long"
    return "is too long" if len(_escape_all(text)) > NAME_MAX_BYTES else None


@lru_cache(NAMES_MAX)
def escape_name(name: str) -> str:
    """Return the form of *name*, which must be allowed, in keys."""
    return _escape_all(name)


def _escape_all(name: str) -> str:
    return "/".join(map(_escape, name.split("/")))


def _escape(segment: str) -> str:
    """Return *segment* in characters that every S3 server and every URL preserve.

    Escapes start with ``~``, not ``%``: a key in a URL must not be escaped again.
    """
    return _UNSAFE.sub(lambda m: "".join(f"~{b:02X}" for b in m[0].encode()), segment)


def unescape_segment(segment: str) -> str:
    raw = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), segment)
    return raw.encode("latin-1").decode()


def display_path(path: bytes) -> str:
    """Return the path of a file for a message: short, and in ASCII."""
    text = path[:DISPLAY_MAX].decode(errors="backslashreplace")
    return ascii(text) + ("..." if len(path) > DISPLAY_MAX else "")
