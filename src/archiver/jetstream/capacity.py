"""How much a stream may hold: derived from the archives and the tasks that the fleet expects."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

TASK_MAX_BYTES = 2 * 1024
"""For a message of the work queue as the server stores it, with the longest names."""


ENTRY_MAX_BYTES = 16 * 1024
"""For a value with its headers, unless a bucket needs more."""


class Share(NamedTuple):
    """The room in a bucket for an archive: so many entries, of so many bytes as they are stored.

    An entry is kept for ``max_age`` after its last write, and has at most ``longest_bytes``.
    """

    entries: float
    size_bytes: int
    max_age: timedelta | None
    longest_bytes: int = ENTRY_MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a bucket keeps an entry after its last write, and how much it keeps.

    The oldest entry is removed first. The server reserves ``max_bytes``. No entry is longer than
    ``longest_bytes``.
    """

    max_age: timedelta | None
    max_entries: int
    max_bytes: int
    longest_bytes: int = ENTRY_MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Room for so many *archives*, and for so many *tasks* of clients that wait at a time."""

    archives: int = 1_000_000
    tasks: int = 10_000

    def bounds(self, share: Share) -> Bounds:
        entries = max(1, int(share.entries * self.archives))
        return Bounds(
            max_age=share.max_age,
            max_entries=entries,
            max_bytes=entries * share.size_bytes,
            longest_bytes=share.longest_bytes,
        )

    def queue_max_bytes(self, repairs: Share) -> int:
        """Return the room for the tasks of clients, and for one of each entry of the repairs."""
        return (self.tasks + self.bounds(repairs).max_entries) * TASK_MAX_BYTES
