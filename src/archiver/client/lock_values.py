"""Which values a lock file may have: it comes from a repository, whose author may be hostile."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from archiver.client.failures import InvalidUsage

SUFFIXES = ("tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip")
FLAGS = ("submodules", "lfs")
NUMBER_MAX = 2**53 - 1
"""The largest integer that every reader of JSON keeps."""
TEXT_MAX = 1024

_NODE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_RESERVED = re.compile(r"\.git|\.hg|.*\.part|\..+\.locked|\..+\.[0-9a-f]{12}", re.IGNORECASE)
"""Names of repositories, and of the files that the client itself writes beside an archive."""


def find_problem(key: str, value: object) -> str:
    """Return what is wrong with a value, as the rest of a sentence; empty if it is right."""
    if key in FLAGS:
        return "" if isinstance(value, bool) else "is neither true nor false"
    if key in {"strip", "size"}:
        right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX
        return "" if right else "is no integer from 0 on"
    if not isinstance(value, str) or len(value) > TEXT_MAX or not _is_unicode(value):
        return f"is no Unicode text of at most {TEXT_MAX} characters"
    return _PROBLEMS[key](value) if value or key == "suffix" else ""


def require_apart(places: Mapping[str, str], where: str) -> None:
    """Raise InvalidUsage if two of the *places* are the same, or one is inside another.

    Some file systems do not distinguish small and capital letters, or forms of Unicode.
    """
    sorted_places = sorted((_folded(place), name) for name, place in places.items())
    for (upper, one), (lower, other) in zip(sorted_places, sorted_places[1:]):
        if lower[: len(upper)] == upper:
            raise InvalidUsage(f"{where}: {one} and {other} would be in the same place")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffix_problem(value: str) -> str:
    return "" if value in SUFFIXES else f"is none of {', '.join(SUFFIXES)}"


def _node_problem(value: str) -> str:
    return "" if _NODE.fullmatch(value) else "needs 40 or 64 hexadecimal digits"


def _sha256_problem(value: str) -> str:
    return "" if _SHA256.fullmatch(value) else "needs 64 hexadecimal digits"


def _rev_problem(value: str) -> str:
    right = not _CONTROL.search(value) and ".." not in value.split("/")
    return "" if right else "has a control character, or leads elsewhere"


def _source_problem(value: str) -> str:
    return "leads elsewhere" if "/" in value else _name_problem(value)


def _name_problem(value: str) -> str:
    """Return what is wrong with the name of a source or repo, or with a subdir."""
    if not value.isprintable() or "\\" in value:
        return "has a control character or a backslash"
    elsewhere = {"", ".", ".."}.intersection(value.strip("/").split("/"))
    return "leads elsewhere" if elsewhere else ""


def _path_problem(value: str) -> str:
    path = PurePosixPath(value)
    if not value.isprintable():
        return "has a control character"
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "leads out of the folder"
    reserved = [part for part in path.parts if _RESERVED.fullmatch(part)]
    return f"has the reserved name {reserved[0]}" if reserved else ""


def _folded(place: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", place).casefold()).parts


_PROBLEMS: Mapping[str, Callable[[str], str]] = {
    "source": _source_problem,
    "repo": _name_problem,
    "rev": _rev_problem,
    "subdir": _name_problem,
    "suffix": _suffix_problem,
    "file": _path_problem,
    "extract": _path_problem,
    "node": _node_problem,
    "sha256": _sha256_problem,
}
