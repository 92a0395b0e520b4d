"""One line of a diagnosis."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """A ``WARNING`` does not keep Archiver from working now."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line about the thing that ``check`` names: the facts ``found``, and the ``action`` to take.

    Both are clauses without a full stop. Neither has a secret, a link or the text of a library.
    """

    check: str
    level: Level
    found: str
    action: str = ""


def well(check: str, found: str) -> Finding:
    return Finding(check=check, level=Level.OK, found=found)


def warning(check: str, found: str, action: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, found=found, action=action)


def failure(check: str, found: str, action: str) -> Finding:
    return Finding(check=check, level=Level.FAILED, found=found, action=action)
