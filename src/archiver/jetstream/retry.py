"""When to try again: pure arithmetic."""

import random
from datetime import timedelta
from typing import NamedTuple

from archiver.errors import ArchiverError, SourceBusy

RETRY_MAX = timedelta(seconds=60)
"""A task that waits keeps its seat under the source's cap, so it must not wait long."""

OUTAGE_MAX = timedelta(days=1)
"""How long a task waits for our own parts. By then clients have long given up, and an operator who
was not woken by the log reads of the failures."""

OUTAGE_DELAY_MAX = timedelta(seconds=10)
"""How long a task may wait after the end of an outage. Until then it costs a few questions."""

SPOILED_MAX = 5
"""Attempts of one task that an outage may break off after they have begun to fetch: each costs the
host an archive. A region that proves that it takes writes, and then does not take this archive,
is rather full than away."""

SPOILED_DELAY_FACTOR = 8


class Outage(NamedTuple):
    """How long our own parts have kept a task waiting, and how many attempts they have spoiled.

    ``spoils`` says whether the last attempt is one of them.
    """

    lasted: timedelta
    spoiled: int
    spoils: bool

    @property
    def outlasts_patience(self) -> bool:
        return self.lasted >= OUTAGE_MAX or self.spoiled >= SPOILED_MAX


def outage_delay(outage: Outage, *, base: timedelta) -> timedelta:
    """Return how long to wait until it is tried whether an outage of ours is over.

    About as long as it has lasted, at most 10 s: that costs nobody but us. Where the host paid for
    an attempt in vain, longer, doubling up to 60 s.
    """
    if outage.spoils:
        longest = min(base * SPOILED_DELAY_FACTOR * (1 << min(outage.spoiled - 1, 16)), RETRY_MAX)
    else:
        longest = min(max(outage.lasted, base), OUTAGE_DELAY_MAX)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret hangs on it


def delay(failures: int, error: ArchiverError, *, base: timedelta) -> timedelta:
    """Return how long to wait after the given number of failures, at least 1.

    Doubles from *base* up to 60 s, then takes a random share between half and all of it, so that
    tasks that failed together do not come back together. A host that named a time is given it, up
    to the same 60 s.
    """
    longest = min(base * (1 << min(failures - 1, 16)), RETRY_MAX)
    wait = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret hangs on it
    if isinstance(error, SourceBusy) and error.retry_after:
        wait = max(wait, min(error.retry_after, RETRY_MAX))
    return wait
