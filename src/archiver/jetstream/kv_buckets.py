"""The key-value buckets of a fleet in NATS: their names and bounds."""

from dataclasses import dataclass
from datetime import timedelta

STATES, INDEX, REVS, REPAIRS = "states", "index", "revs", "repairs"

TASKS = "tasks"
"""The work queue. It is no bucket, but its messages may be unreadable as well."""

DIGESTS = "digests"
"""Keys of two tokens: a SHA-256, and the hash of an archive that has it."""

ENTRY_MAX_BYTES = 16 * 1024
"""For a value with its headers. The longest is an entry of the index: about 4 kB with the longest
names, and about 12 kB if the host sent the archive from a URL of 8 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a bucket keeps an entry after its last write, and how many entries it keeps.

    The oldest entry is removed first. The number of entries and ENTRY_MAX_BYTES bound the bytes.
    With a bound in bytes, the server would reserve them, and refuse the bucket on a smaller disk.
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
"""docs/architecture.md explains why the loss of an entry does no harm, for each bucket."""
