"""How long a task waits before its next attempt: pure arithmetic."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.errors import ArchiverError, SourceBusy, SourcePaused
from archiver.ports.queue import Lease, OutageHistory
from archiver.tasks import Phase

RETRY_MAX = timedelta(seconds=60)
"""A waiting task occupies a place under its source's cap, so it must not wait for long."""

OUTAGE_MAX = timedelta(days=1)
"""How long a task waits for our own parts. Clients have given up long before, and operators who
missed the log lines see the failures."""

OUTAGE_DELAY_MAX = timedelta(seconds=10)
"""How long a task may wait after the end of an outage. A useless attempt costs a few requests."""

SPOILED_MAX = 5
"""Attempts per task that an outage may interrupt after they have begun to fetch. Each costs the
host an archive. A region that accepts the write probe and then refuses the archive is more likely
full than away."""

SPOILED_DELAY_FACTOR = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """How long our own parts have kept a task waiting, and how many attempts they have spoiled.

    ``spoils`` is true if the last attempt is one of them.
    """

    lasted: timedelta
    spoiled: int
    spoils: bool
    since: datetime | None = None

    @classmethod
    def of(cls, lease: Lease) -> "Outage":
        """Return the outage that ended this attempt.

        If the attempt had begun to fetch, an earlier outage was over, and this is a new one.
        """
        spoils, now = lease.phase is not Phase.CONNECTING, datetime.now(UTC)
        since = now if spoils else min(lease.outages.since or now, now)
        spoiled = lease.outages.spoiled + spoils
        return cls(lasted=now - since, spoiled=spoiled, spoils=spoils, since=since)

    @property
    def history(self) -> OutageHistory:
        return OutageHistory(since=self.since, spoiled=self.spoiled)

    @property
    def outlasts_patience(self) -> bool:
        return self.lasted >= OUTAGE_MAX or self.spoiled >= SPOILED_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWait:
    """How long pauses of a host have kept a task waiting."""

    history: OutageHistory
    lasted: timedelta

    @classmethod
    def of(cls, lease: Lease) -> "HostWait":
        now = datetime.now(UTC)
        since = min(lease.outages.since or now, now)
        history = OutageHistory(since=since, spoiled=lease.outages.spoiled)
        return cls(history=history, lasted=now - since)

    @property
    def outlasts_patience(self) -> bool:
        return self.lasted >= OUTAGE_MAX


def pause_delay(error: SourcePaused) -> timedelta:
    """Return how long a task waits for the host of a submodule, whose source is not its own."""
    longest = min(error.retry_after or RETRY_MAX, RETRY_MAX)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - not used for security


def outage_delay(outage: Outage, *, base: timedelta) -> timedelta:
    """Return how long to wait before checking whether an outage of ours is over.

    About as long as it has lasted, at most 10 s, because a useless attempt costs only us. If the
    host paid for one, the delay is longer and doubles up to 60 s.
    """
    if outage.spoils:
        longest = min(base * SPOILED_DELAY_FACTOR * (1 << min(outage.spoiled - 1, 16)), RETRY_MAX)
    else:
        longest = min(max(outage.lasted, base), OUTAGE_DELAY_MAX)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - not used for security


def delay(failures: int, error: ArchiverError, *, base: timedelta) -> timedelta:
    """Return how long to wait after *failures*, which is at least 1.

    Doubles from *base* up to 60 s. A random share between half and all of it is used, so tasks that
    failed together do not return together. If the host named a time, the delay is at least that
    long, up to the same 60 s.
    """
    longest = min(base * (1 << min(failures - 1, 16)), RETRY_MAX)
    wait = longest * random.uniform(0.5, 1)  # noqa: S311 - not used for security
    if isinstance(error, SourceBusy) and error.retry_after:
        wait = max(wait, min(error.retry_after, RETRY_MAX))
    return wait
