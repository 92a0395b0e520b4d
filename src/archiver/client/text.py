"""Untrusted text and URLs: which URLs are valid, and what a terminal may show of both."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HIDDEN = "***"
URL_MAX = 8192
LENGTH_MAX = 2000

_USER_INFO = re.compile(r"//[^/@\s,]+@")


def is_url(text: str) -> bool:
    """Return whether *text* is an absolute http or https URL that can be requested as it is."""
    try:
        url = urlsplit(text)
        return (
            url.scheme in {"http", "https"}
            and bool(url.hostname)
            and url.port != 0
            and text.isascii()
            and text.isprintable()
            and " " not in text
            and len(text) <= URL_MAX
        )
    except ValueError:
        return False


def host(url: str) -> str:
    """Return host and port, without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def origin(url: str) -> str:
    return f"{urlsplit(url).scheme}://{host(url)}"


def hide_user_info(text: str) -> str:
    """Return *text* with ``***`` for the user names and passwords in its URLs."""
    return _USER_INFO.sub(f"//{HIDDEN}@", text)


def without_query(url: str) -> str:
    """Return *url* with ``…`` for its query, which makes a presigned URL a secret."""
    address, question_mark, _ = url.partition("?")
    return f"{address}?…" if question_mark else address


def printable(text: str, *, length_max: int = LENGTH_MAX) -> str:
    r"""Return *text* on one line, cut after *length_max* characters.

    Escape sequences, line breaks and characters that change the writing direction are shown as
    escapes such as ``\x1b``.
    """
    shown = text if len(text) <= length_max else f"{text[:length_max]}…"
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
