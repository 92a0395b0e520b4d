"""The buckets that Archiver keeps in NATS: their names, and how much each of them holds."""

from dataclasses import dataclass
from datetime import timedelta

STATES, INDEX, REVS, REPAIRS = "states", "index", "revs", "repairs"

TASKS = "tasks"
"""The work queue, which is not a bucket, as a place of values."""

DIGESTS = "digests"
"""Keys of two tokens: a SHA-256, and an archive that has it."""

ENTRY_MAX_BYTES = 16 * 1024
"""Of a value with its headers. The longest is an entry of the index: with the longest names it has
some 4 kB, and if the host sent the archive from a URL of 8 kB, some 12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a bucket keeps an entry that is not written again, and how many entries it keeps.

    The oldest entry goes first. Number and ENTRY_MAX_BYTES bound the bytes: a bound in bytes would
    have the server set them aside, and refuse to make the bucket on a smaller disk.
    """

    max_age: timedelta | None
    max_entries: int = 1_000_000


BUCKETS = {
    STATES: Bounds(max_age=timedelta(days=7)),
    INDEX: Bounds(max_age=timedelta(days=90)),
    REVS: Bounds(max_age=timedelta(days=90)),
    REPAIRS: Bounds(max_age=timedelta(days=30), max_entries=100_000),
    DIGESTS: Bounds(max_age=None, max_entries=2_000_000),
}
"""docs/architecture.md says of each why the loss of an entry does no harm."""
