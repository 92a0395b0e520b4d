"""Keeps secrets off the screen."""

import re

HIDDEN = "***"

_USER_INFO = re.compile(r"//[^/@\s,]+@")


def hide_user_info(text: str) -> str:
    """Return *text* without the user names and passwords in its URLs."""
    return _USER_INFO.sub(f"//{HIDDEN}@", text)


def without_query(url: str) -> str:
    """Return *url*, which may be presigned, without the part that makes it a secret."""
    address, question_mark, _ = url.partition("?")
    return f"{address}?…" if question_mark else address
