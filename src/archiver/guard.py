"""The use of hosts and regions under their breakers: admitted before, and counted afterwards."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType

from archiver.blame import Blame
from archiver.breaker import (
    CLEAN,
    Breaker,
    BreakerFailure,
    BreakerName,
    BreakerPolicy,
    BreakerState,
)
from archiver.errors import (
    ArchiverError,
    ForbiddenAddress,
    NotFound,
    SourceBusy,
    SourceError,
    SourcePaused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
)
from archiver.model import Region
from archiver.ports.breakers import Breakers, Change, Step
from archiver.runtime.notifications import Subscribers
from archiver.runtime.tasks import complete_despite_cancellation
from archiver.telemetry import METRICS, log

NEXT_TRY_MIN = timedelta(seconds=1)
"""Shortest delay that clients of a paused source get."""

AFTER_PROBE = timedelta(seconds=3)
"""Delay that they get while a probe runs. Most hosts answer sooner."""

MEASURE_EVERY = timedelta(seconds=2)

_COUNTED = (SourceUnavailable, SourceTimeout, SourceTooSlow, SourceBusy)

_NO_ANSWER = (SourcePaused, ForbiddenAddress)
"""Errors of a host that was not asked."""


_PROBES: ContextVar[Mapping[BreakerName, str]] = ContextVar("probes", default=MappingProxyType({}))
"""The probes that this code is part of: a build that is one may use its host for submodules."""


def _now() -> datetime:
    return datetime.now(UTC)


class Use:
    """One use of a host, for a repo. If it is a ``probe``, it decides whether the pause ends."""

    def __init__(self, guard: "Guard", name: BreakerName, repo: str, probe: str = "") -> None:
        self._guard = guard
        self._name = name
        self._repo = repo
        self._probe = probe
        self._proves = True

    def proves_nothing(self) -> None:
        """Note that the host was not asked: a success of this use says nothing about it."""
        self._proves = False

    async def answered(self) -> None:
        """Close a half-open breaker as soon as the host answers, not after minutes of transfer."""
        if self._probe:
            await self._guard.succeed(self._name)

    async def end(self, error: ArchiverError | None) -> None:
        """Count how the use has ended, unless that says nothing about this host."""
        in_submodule = error is not None and error.origins
        if in_submodule or isinstance(error, _NO_ANSWER):
            await self.abandon()
        elif isinstance(error, _COUNTED):
            delay = error.retry_after if isinstance(error, SourceBusy) else None
            if self._guard.blame.is_on_host(self._name.name, self._repo) or delay:
                failure = BreakerFailure(code=error.code, retry_after=delay)
                await self._guard.fail(self._name, failure, probe=self._probe)
            else:
                await self.abandon()
        elif isinstance(error, (NotFound, SourceError)) or (error is None and self._proves):
            self._guard.blame.note_answer(self._name.name, self._repo)
            await self._guard.succeed(self._name)
        else:
            await self.abandon()

    async def abandon(self) -> None:
        """Let another probe through, if this was one."""
        if self._probe:
            await self._guard.release(self._name, self._probe)


class Guard:
    """Applies the breakers of *policies* to the hosts and regions that this process uses.

    ``changes`` is called with the name of a breaker that was opened or closed anywhere.
    """

    def __init__(
        self,
        *,
        breakers: Breakers,
        policies: Mapping[BreakerName, BreakerPolicy],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.changes: Subscribers[[BreakerName]] = Subscribers()
        self.blame = Blame()
        self._breakers = breakers
        self._policies = policies
        self._now = now
        self._not_closed: frozenset[BreakerName] = frozenset()
        breakers.changes.add(self._on_change)

    def source_state(self, source: str) -> BreakerState:
        """Return whether a use of the source's host would be admitted now.

        CLOSED if any is, HALF_OPEN if one of the whole fleet is, and OPEN if none is, also while
        that one runs.
        """
        breaker, now = self._breakers.known(BreakerName("source", source)), self._now()
        return BreakerState.OPEN if breaker.next_try(now) else breaker.state(now)

    def is_paused(self, source: str) -> bool:
        return self.source_state(source) is BreakerState.OPEN

    def avoids(self, region: Region) -> bool:
        """Return whether the breaker of *region* is not closed."""
        return not self._breakers.known(BreakerName("region", region)).is_closed

    def is_clean(self, name: BreakerName) -> bool:
        """Return whether a success would change nothing."""
        return self._breakers.known(name) == CLEAN

    def not_closed(self) -> Mapping[BreakerName, Breaker]:
        known = {name: self._breakers.known(name) for name in self._policies}
        return {name: breaker for name, breaker in known.items() if not breaker.is_closed}

    @asynccontextmanager
    async def use(self, source: str, repo: str = "") -> AsyncIterator[Use]:
        """Use the host of *source* for *repo*, if it is known, and count how the block ends.

        Raises SourcePaused at once if the host must not be asked now.
        """
        name = BreakerName("source", source)
        around = _PROBES.get()
        use = Use(self, name, repo, probe := await self._admit(name))
        _PROBES.set({**around, name: probe})
        try:
            yield use
        except ArchiverError as exc:
            await use.end(exc)
            raise
        except BaseException:
            await complete_despite_cancellation(use.abandon())
            raise
        else:
            await use.end(None)
        finally:
            _PROBES.set(around)

    async def _admit(self, name: BreakerName) -> str:
        """Return the name of a probe, or nothing if none is needed. Raises SourcePaused."""
        known = self._breakers.known(name)
        if known.is_closed:
            return ""
        if known.probe and _PROBES.get().get(name) == known.probe:
            return known.probe
        if known.next_try(self._now()) is None:
            probe = secrets.token_hex(8)
            after = (await self._take_probe(name, probe)).after
            if after.is_closed or after.probe == probe:
                return after.probe
        raise self._paused(name)

    async def _take_probe(self, name: BreakerName, probe: str) -> Change:
        policy = self._policies[name]
        step: Step = lambda breaker: breaker.with_probe(probe, self._now(), policy)  # noqa: E731
        try:
            return await complete_despite_cancellation(self._breakers.change(name, step))
        except asyncio.CancelledError:
            await complete_despite_cancellation(self.release(name, probe))
            raise

    def _paused(self, name: BreakerName) -> SourcePaused:
        now = self._now()
        until = self._breakers.known(name).until or now
        left = until - now if until > now else AFTER_PROBE
        message = f"{name.name} has failed or asked for a pause, so it is not asked now"
        return SourcePaused(message, retry_after=max(left, NEXT_TRY_MIN))

    async def release(self, name: BreakerName, probe: str) -> None:
        await self._change(name, lambda breaker: breaker.without_probe(probe))

    async def succeed(self, name: BreakerName) -> None:
        await self._change(name, lambda breaker: breaker.answered(self._now()))

    async def fail(self, name: BreakerName, failure: BreakerFailure, *, probe: str = "") -> None:
        policy = self._policies.get(name)
        if policy is None:
            return
        step = partial(Breaker.failed, failure=failure, policy=policy, probe=probe)
        await self._change(
            name, lambda breaker: step(breaker, now=self._now()), named=bool(failure.retry_after)
        )

    async def _change(self, name: BreakerName, step: Step, *, named: bool = False) -> None:
        if name not in self._policies:
            return
        change = await self._breakers.change(name, step)
        if change.after.openings > change.before.openings:
            _report_opened(name, change, named=named)
        elif change.after.is_closed and not change.before.is_closed:
            log.info("breaker.closed", kind=name.kind, name=name.name)

    async def keep_measuring(self) -> None:
        """Keep the metric up to date until cancelled: a pause ends without an event."""
        while True:
            for name in self._policies:
                self._measure(name)
            await asyncio.sleep(MEASURE_EVERY.total_seconds())

    def _measure(self, name: BreakerName) -> None:
        state = self._breakers.known(name).state(self._now())
        METRICS.breaker_state.labels(kind=name.kind, name=name.name).set(state)

    def _on_change(self, name: BreakerName) -> None:
        if name in self._policies:
            self._measure(name)
        not_closed = frozenset(self.not_closed())
        if not_closed != self._not_closed:
            self._not_closed = not_closed
            self.changes.notify(name)


def _report_opened(name: BreakerName, change: Change, *, named: bool) -> None:
    """Log a pause. Only the process that has made the change does."""
    after = change.after
    until = after.until.isoformat(timespec="seconds") if after.until else ""
    if change.before.is_closed:
        METRICS.breaker_openings.labels(kind=name.kind, name=name.name).inc()
    if named:
        log.warning("source.paused", source=name.name, code=after.code, until=until)
    else:
        log.warning(
            "breaker.opened",
            kind=name.kind,
            name=name.name,
            code=after.code,
            failures=after.failures,
            until=until,
        )
