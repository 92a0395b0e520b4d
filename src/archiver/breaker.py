"""Circuit breakers as values: closed, open until a time, then half-open for one probe."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Literal, NamedTuple

PAUSE = timedelta(seconds=5)
"""The first pause. A host that restarts is back after a few seconds."""

PAUSE_MAX = timedelta(minutes=5)
"""A host that comes back is noticed so late at most."""

NAMED_PAUSE_MAX = timedelta(minutes=15)
"""Longest pause that a host can ask for. A mistake of the host would stop its source for longer."""

PROBE_LEASE = timedelta(seconds=30)
"""Until then, no other probe is let through. A process that has died cannot give its one back."""

EXTENDED_BY_MIN = timedelta(seconds=1)
"""Shorter extensions of a pause are not worth a write: each answer of a host may name a time."""

_DOUBLINGS_MAX = 16


class BreakerState(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerName(NamedTuple):
    """The breaker of a source or of a region."""

    kind: Literal["source", "region"]
    name: str

    @property
    def key(self) -> str:
        return f"breaker.{self.kind}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    It opens after so many consecutive ``failures``; with 0, only when a host names a time. Each
    pause is twice as long as the one before, up to ``pause_max``.
    """

    failures: int
    pause: timedelta = PAUSE
    pause_max: timedelta = PAUSE_MAX
    probe_lease: timedelta = PROBE_LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerFailure:
    """A failure that counts. ``retry_after`` is the delay that the host asked for, if any."""

    code: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of one source or region in the fleet. Every method returns another value, or this.

    ``failures`` counts those since the last success, and ``code`` is the code of the last one.
    ``until`` is the end of the pause, or None while it is closed. ``openings`` counts the pauses
    since it was closed. ``probe`` names the probe that runs, if any, at most until ``probe_until``.
    """

    failures: int = 0
    openings: int = 0
    code: str = ""
    until: datetime | None = None
    probe: str = ""
    probe_until: datetime | None = None

    def state(self, now: datetime) -> BreakerState:
        if self.until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.until else BreakerState.HALF_OPEN

    @property
    def is_closed(self) -> bool:
        return self.until is None

    def next_try(self, now: datetime) -> datetime | None:
        """Return when a use may be admitted again; None if one is admitted now."""
        ends = (self.until, self.probe_until)
        return max((end for end in ends if end and end > now), default=None)

    def with_probe(self, probe: str, now: datetime, policy: BreakerPolicy) -> "Breaker":
        """Return the breaker with this probe, if it is half-open and no other probe runs."""
        if self.is_closed or self.next_try(now):
            return self
        return replace(self, probe=probe, probe_until=now + policy.probe_lease)

    def without_probe(self, probe: str) -> "Breaker":
        """Return the breaker after this probe has ended without an answer."""
        return replace(self, probe="", probe_until=None) if self.probe == probe else self

    def answered(self, now: datetime) -> "Breaker":
        """Return the breaker after a success. An old request may succeed during a pause."""
        return self if self.state(now) is BreakerState.OPEN else CLEAN

    def failed(
        self, failure: BreakerFailure, now: datetime, policy: BreakerPolicy, *, probe: str = ""
    ) -> "Breaker":
        """Return the breaker after a failure: of this *probe*, if it was one.

        Requests from before a pause may fail during the pause. They count only if the host names a
        later time.
        """
        named = _named_end(failure, now)
        counted = replace(self, failures=self.failures + 1, code=failure.code)
        if self.state(now) is BreakerState.CLOSED:
            opens = named or (policy.failures and counted.failures >= policy.failures)
            return _opened(counted, now, policy, named) if opens else counted
        if self.state(now) is BreakerState.OPEN:
            later = named and self.until and named >= self.until + EXTENDED_BY_MIN
            return replace(self, until=named, code=failure.code) if later else self
        ours = probe and probe == self.probe
        if ours and not named and not policy.failures:
            return CLEAN  # the pause that the host asked for is over
        return _opened(counted, now, policy, named) if ours or named else self


CLEAN = Breaker()


def _opened(
    breaker: Breaker, now: datetime, policy: BreakerPolicy, named: datetime | None
) -> Breaker:
    longer = policy.pause * (1 << min(breaker.openings, _DOUBLINGS_MAX))
    until = named or now + min(longer, policy.pause_max)
    return replace(breaker, openings=breaker.openings + 1, until=until, probe="", probe_until=None)


def _named_end(failure: BreakerFailure, now: datetime) -> datetime | None:
    return now + min(failure.retry_after, NAMED_PAUSE_MAX) if failure.retry_after else None
