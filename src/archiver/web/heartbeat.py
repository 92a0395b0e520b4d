"""Whether the service is well: asked of the engine and of every bucket, but not too often."""

import time
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from archiver.concurrency import Coalesce
from archiver.errors import ArchiverError
from archiver.service import Archiver, Health
from archiver.telemetry import log

KEEP = timedelta(seconds=5)
"""However often it is asked: a public check must not multiply into requests to the buckets."""


class Level(IntEnum):
    """Python's levels, which Dockerflow's ``details`` give as numbers."""

    OK = 0
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found of one part; ``error`` is None when it answers."""

    level: Level
    error: ArchiverError | None


class Heartbeat:
    """Checks anew when the last check is older than *keep*; once, however many ask meanwhile."""

    def __init__(self, *, archiver: Archiver, keep: timedelta = KEEP) -> None:
        self._archiver = archiver
        self._keep_s = keep.total_seconds()
        self._checking: Coalesce[None, dict[str, Check]] = Coalesce()
        self._last: dict[str, Check] = {}
        self._good_until = 0.0

    async def checks(self) -> dict[str, Check]:
        """Return what was found of ``engine`` and of each ``region.…``, at most *keep* ago."""
        if time.monotonic() < self._good_until:
            return self._last
        return await self._checking.run(None, self._check)

    async def _check(self) -> dict[str, Check]:
        self._last = _grade(await self._archiver.check())
        self._good_until = time.monotonic() + self._keep_s
        for name, check in self._last.items():
            if check.error:
                log.warning("heartbeat.failed", part=name, **check.error.log_fields)
        return self._last


def _grade(health: Health) -> dict[str, Check]:
    """One region that answers is enough to serve what it holds, so that others only worry."""
    some_region = any(error is None for error in health.regions.values())
    of_a_region = Level.WARNING if some_region else Level.ERROR
    checks = {"engine": _check(health.engine, Level.ERROR)}
    for region, error in health.regions.items():
        checks[f"region.{region}"] = _check(error, of_a_region)
    return checks


def _check(error: ArchiverError | None, level: Level) -> Check:
    return Check(level=level if error else Level.OK, error=error)
