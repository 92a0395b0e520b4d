"""What became of the archives that a region lacked."""

from collections import Counter
from dataclasses import dataclass, field

from archiver.errors import StorageUnavailable
from archiver.model import Archive

FOUND, COPIED = "found", "copied"
UNCOPIED = "uncopied"
"""The task ended, and the region has no copy."""

LOST = "lost"
"""A manifest exists, but no region has the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """An archive that the region lacked.

    ``outcome`` is one of the constants above, or the code of an error. ``size_bytes`` is None if no
    region has the archive.
    """

    archive: Archive
    outcome: str
    size_bytes: int | None = None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Progress of a fill. ``size_bytes`` are those of ``copied`` archives, or of ``found`` ones.

    ``selected`` archives exist in some region. ``done`` of about ``total`` archives need nothing
    more.
    """

    phase: str = "listing"
    done: int = 0
    total: int | None = None
    selected: int = 0
    found: int = 0
    copied: int = 0
    size_bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        """Archives about which no region that answered knows."""
        return self.failures[StorageUnavailable.code]

    @property
    def failed(self) -> int:
        return self.failures.total() - self.unanswered

    def add(self, filled: Filled) -> None:
        if filled.outcome == COPIED:
            self.copied += 1
        elif filled.outcome == FOUND:
            self.found += 1
        else:
            self.failures[filled.outcome] += 1
            return
        self.size_bytes += filled.size_bytes or 0
