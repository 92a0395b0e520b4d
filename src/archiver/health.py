"""The health of the parts that a process depends on."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from archiver.errors import ArchiverError, NoWorker, StorageUnavailable
from archiver.model import Region
from archiver.runtime.single_flight import SingleFlight
from archiver.telemetry import log

RESULT_TTL = timedelta(seconds=5)
"""How long a result is reused. The route is public, and must not multiply requests to the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The error of each part; None for a part that works.

    ``workers`` covers the fleet. A worker's own health (``of_worker``) does not include it.
    """

    engine: ArchiverError | None
    regions: Mapping[Region, ArchiverError | None]
    workers: ArchiverError | None = None
    of_worker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """A worker's report about itself.

    ``regions`` maps each region to None if it took the worker's last write. Otherwise the value is
    the reason: a message, and S3's code.
    """

    name: str
    regions: Mapping[Region, str | None]


def health_of(
    *,
    engine: ArchiverError | None,
    regions: Mapping[Region, ArchiverError | None],
    reports: Sequence[WorkerReport] | ArchiverError,
) -> Health:
    """Return the health of the service from its parts and the *reports* of its workers.

    A region works if it responds and at least one worker can write to it.
    """
    if isinstance(reports, ArchiverError):
        return Health(engine=engine, regions=regions, workers=reports)
    return Health(
        engine=engine,
        regions={
            region: error or _not_writable(region, reports) for region, error in regions.items()
        },
        workers=None if reports else NoWorker("no worker responds; see `archiver worker`"),
    )


def _not_writable(region: Region, reports: Sequence[WorkerReport]) -> StorageUnavailable | None:
    """Return why no worker can write to *region*; None if one can, or if no worker tried."""
    problems = [report.regions[region] for report in reports if region in report.regions]
    reasons = [problem for problem in problems if problem]
    if not reasons or len(reasons) < len(problems):
        return None
    return StorageUnavailable(reasons[0])


class Level(IntEnum):
    """Python's log levels, whose numbers Dockerflow uses."""

    OK = 0
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result for one part, with the ``error`` of a failed one."""

    level: Level
    error: ArchiverError | None

    def without_frames(self) -> "CheckResult":
        """Return a copy that can be stored; see ``ArchiverError.without_frames``."""
        error = self.error.without_frames() if self.error else None
        return CheckResult(level=self.level, error=error)


class Heartbeat:
    """Runs *check* at most once per *ttl*, and once for all concurrent callers."""

    def __init__(
        self, *, check: Callable[[], Awaitable[Health]], ttl: timedelta = RESULT_TTL
    ) -> None:
        self._check = check
        self._ttl_s = ttl.total_seconds()
        self._checking: SingleFlight[None, Mapping[str, CheckResult]] = SingleFlight()
        self._last: Mapping[str, CheckResult] = {}
        self._good_until = 0.0

    async def checks(self) -> Mapping[str, CheckResult]:
        """Return the result for each part, at most *ttl* old."""
        if time.monotonic() < self._good_until:
            return self._last
        return await self._checking.run(None, self._run)

    async def _run(self) -> Mapping[str, CheckResult]:
        checks = grade(await self._check())
        for part, check in checks.items():
            if check.error:
                error = check.error
                log.warning("heartbeat.failed", part=part, reason=error.reason, **error.log_fields)
        self._last = {part: check.without_frames() for part, check in checks.items()}
        self._good_until = time.monotonic() + self._ttl_s
        return self._last


def grade(health: Health) -> Mapping[str, CheckResult]:
    """Return the result for each part: ``engine``, ``workers`` and each ``region.NAME``.

    A failed region is only a warning while another one works.
    """
    any_region_works = any(error is None for error in health.regions.values())
    region_level = Level.WARNING if any_region_works else Level.ERROR
    workers = {} if health.of_worker else {"workers": _graded(health.workers, Level.ERROR)}
    return {
        "engine": _graded(health.engine, Level.ERROR),
        **workers,
        **{
            f"region.{name}": _graded(error, region_level) for name, error in health.regions.items()
        },
    }


def _graded(error: ArchiverError | None, level: Level) -> CheckResult:
    return CheckResult(level=level if error else Level.OK, error=error)


def render_heartbeat(checks: Mapping[str, CheckResult]) -> tuple[int, dict[str, object]]:
    """Return the status and the JSON body of Dockerflow's ``/__heartbeat__``."""
    worst = max(check.level for check in checks.values())
    body: dict[str, object] = {
        "status": worst.name.lower(),
        "checks": {part: check.level.name.lower() for part, check in checks.items()},
        "details": {part: _details(check) for part, check in checks.items()},
    }
    return (500 if worst is Level.ERROR else 200), body


def _details(check: CheckResult) -> dict[str, object]:
    messages = {check.error.code: check.error.reason} if check.error else {}
    return {"status": check.level.name.lower(), "level": int(check.level), "messages": messages}
