"""When to try again: pure arithmetic."""

import random
from datetime import timedelta

from archiver.errors import ArchiverError, SourceBusy

RETRY_MAX = timedelta(seconds=60)
"""A task that waits keeps its seat under the source's cap, so it must not wait long."""


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
