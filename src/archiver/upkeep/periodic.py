"""Work that one process of the fleet does from time to time."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from archiver.errors import EngineUnavailable
from archiver.ports.schedule import Schedule, Turn
from archiver.runtime.tasks import complete_despite_cancellation, concurrently
from archiver.telemetry import log

TURN = timedelta(minutes=10)
"""How long a process that has died keeps its turn."""

POLL_MAX = timedelta(minutes=10)
"""How often each process looks at least whether the work is due: another may have done it."""

LOOK_MIN = timedelta(seconds=1)

RETRY = timedelta(hours=1)
"""When work that failed is due again, unless it is done more frequently."""

JITTER = 0.1


class Report(Protocol):
    """The result of the work. If it is not ``complete``, the work is due again soon."""

    @property
    def complete(self) -> bool: ...


R = TypeVar("R", bound=Report)


class Periodic:
    """Does *work*, which has a name in the schedule, at each *interval*: one process at a time.

    With an *interval* of 0, the work is due whenever no other process does it.
    """

    def __init__(
        self, *, schedule: Schedule, work: str, interval: timedelta, turn: timedelta = TURN
    ) -> None:
        self._schedule = schedule
        self._work = work
        self._interval = interval
        self._turn = turn

    async def keep_running(self, run: Callable[[], Coroutine[Any, Any, Report]]) -> None:
        """Call *run* whenever the work is due, until cancelled."""
        while True:
            try:
                await asyncio.sleep((await self._pause()).total_seconds())
                await self.run_if_due(run)
            except EngineUnavailable as exc:
                log.debug("turn.unknown", work=self._work, code=exc.code)
                await asyncio.sleep(self._look_every().total_seconds())
            except Exception:  # noqa: BLE001 - the next time, it may succeed
                log.exception("turn.broken", work=self._work)
                await asyncio.sleep(self._look_every().total_seconds())

    async def _pause(self) -> timedelta:
        """Return how long to wait before the next look whether the work is due."""
        due_at, longest = await self._schedule.next_due(self._work), self._look_every()
        if due_at is None:
            return longest
        return min(longest, max(LOOK_MIN, due_at - datetime.now(UTC)))

    def _look_every(self) -> timedelta:
        return _jittered(min(POLL_MAX, self._interval))

    async def run_if_due(self, run: Callable[[], Coroutine[Any, Any, R]]) -> R | None:
        """Return the report of *run*, or None if the work is not due.

        A process that loses its turn, because it was frozen, stops *run*, and returns None.

        Raises:
            EngineUnavailable: It is unknown whether the work is due.
        """
        turn = await self._hear_of(self._schedule.begin(self._work, until=_after(self._turn)))
        if turn is None:
            return None
        report, pause = None, min(RETRY, self._interval)
        try:
            async with concurrently(run()) as running:
                while turn and not running.done():
                    await asyncio.wait([running], timeout=self._turn.total_seconds() / 3)
                    kept = self._schedule.postpone(turn, until=_after(self._turn))
                    turn = await self._hear_of(kept)
                if turn:
                    report = await running
                    pause = self._interval if report.complete else pause
        finally:
            await self._end(turn, pause)
        return report

    async def _hear_of(self, request: Coroutine[Any, Any, Turn | None]) -> Turn | None:
        """Return the turn that *request* takes. A cancelled caller gives it up at once."""
        requesting = asyncio.create_task(request)
        try:
            return await complete_despite_cancellation(requesting)
        except asyncio.CancelledError:
            if not requesting.exception() and (turn := requesting.result()):
                await self._end(turn, timedelta(0))
            raise

    async def _end(self, turn: Turn | None, pause: timedelta) -> None:
        """Have the work due again after *pause*. If the engine is away, the turn runs out."""
        if turn is None:
            log.warning("turn.lost", work=self._work)
            return
        with suppress(EngineUnavailable):
            await self._schedule.postpone(turn, until=_after(_jittered(pause)))


def _after(delay: timedelta) -> datetime:
    return datetime.now(UTC) + delay


def _jittered(delay: timedelta) -> timedelta:
    """Return *delay*, a little shorter, so that the workers of a fleet do not act as one."""
    return delay * random.uniform(1 - JITTER, 1)  # noqa: S311 - no secret
