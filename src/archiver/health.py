"""The health of the parts that a process depends on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TypeAlias

from archiver.breaker import Breaker, BreakerName
from archiver.errors import (
    ArchiverError,
    EngineUnavailable,
    NoWorker,
    SourcePaused,
    StorageUnavailable,
)
from archiver.model import Region
from archiver.ports.queue import Fleet, WorkerReport
from archiver.ports.storage import Storage
from archiver.runtime.single_flight import SingleFlight
from archiver.telemetry import log

RESULT_TTL = timedelta(seconds=5)
"""How long a result is reused. The route is public, and must not multiply requests to the parts."""


Health: TypeAlias = Mapping[str, ArchiverError | None]
"""The error of each part: ``engine``, ``workers`` and each ``region.NAME``; None if it works.

With ``worker``, the process is a worker that drains. Each breaker that is not closed is a part as
well: ``breaker.source.NAME``, ``breaker.region.NAME``.
"""

_REGION = "region."
_BREAKER = "breaker."
_WORKER = "worker"


async def check_service(fleet: Fleet, storage: Storage) -> Health:
    """Return the health of the engine, the workers and the regions.

    Web processes may lack the right to write, so workers report which regions take writes.
    """
    async with asyncio.TaskGroup() as group:
        engine = group.create_task(fleet.check_queue())
        regions = group.create_task(storage.check_access())
        reports = group.create_task(_worker_reports(fleet))
    return health_of(engine=engine.result(), regions=regions.result(), reports=reports.result())


async def check_worker(fleet: Fleet, storage: Storage, *, draining: bool = False) -> Health:
    """Return the health of a worker: the engine, and the regions that take its writes.

    While it is *draining*, ``worker`` is a warning: it works, but takes no new tasks.
    """
    async with asyncio.TaskGroup() as group:
        engine = group.create_task(fleet.check_queue())
        regions = group.create_task(storage.check_writable())
    health = health_of(engine=engine.result(), regions=regions.result())
    if not draining:
        return health
    return {**health, _WORKER: NoWorker("this worker drains, and takes no new tasks")}


async def _worker_reports(fleet: Fleet) -> Sequence[WorkerReport] | ArchiverError:
    try:
        return await fleet.workers()
    except EngineUnavailable as exc:
        return exc


def health_of(
    *,
    engine: ArchiverError | None,
    regions: Mapping[Region, ArchiverError | None],
    reports: Sequence[WorkerReport] | ArchiverError | None = None,
) -> Health:
    """Return the health of the service; without *reports* of the workers, that of one worker.

    A region works if it responds and at least one worker can write to it.
    """
    workers: Health = {}
    if isinstance(reports, ArchiverError):
        workers = {"workers": reports}
    elif reports is not None:
        workers = {"workers": _no_worker(reports)}
        regions = {
            region: error or _not_writable(region, reports) for region, error in regions.items()
        }
    parts = {f"{_REGION}{name}": error for name, error in regions.items()}
    return {"engine": engine, **workers, **parts}


def _no_worker(reports: Sequence[WorkerReport]) -> NoWorker | None:
    """Return why no worker takes new tasks; None if one does."""
    if not reports:
        return NoWorker("no worker responds; see `archiver worker`")
    if all(report.draining for report in reports):
        return NoWorker("every worker drains, and takes no new tasks; see `archiver drain`")
    return None


def _not_writable(region: Region, reports: Sequence[WorkerReport]) -> StorageUnavailable | None:
    """Return why no worker can write to *region*; None if one can, or if no worker tried."""
    problems = [report.regions[region] for report in reports if region in report.regions]
    reasons = [problem for problem in problems if problem]
    if not reasons or len(reasons) < len(problems):
        return None
    return StorageUnavailable(reasons[0])


def health_of_breakers(not_closed: Mapping[BreakerName, Breaker]) -> Health:
    """Return a part for each of these breakers."""
    now = datetime.now(UTC)
    return {name.key: _pause(name, breaker, now) for name, breaker in not_closed.items()}


def _pause(name: BreakerName, breaker: Breaker, now: datetime) -> ArchiverError:
    if name.kind == "region":
        message = "the region fails, so new redirects may avoid it"
        return StorageUnavailable(message, s3_code=breaker.code or None)
    message = "the next request to the host decides whether it works again"
    if breaker.until and breaker.until > now:
        message = f"the host is not asked until {breaker.until.isoformat(timespec='seconds')}"
    return SourcePaused(f"{message} ({breaker.code})", retry_after=None)


def source_of(part: str) -> str | None:
    """Return the source whose breaker *part* is; None if it is another part."""
    kind = f"{_BREAKER}source."
    return part.removeprefix(kind) if part.startswith(kind) else None


class Level(IntEnum):
    """Python's log levels, whose numbers Dockerflow uses."""

    OK = 0
    WARNING = 30
    ERROR = 40


class Heartbeat:
    """Runs *check* at most once per *ttl*, and once for all concurrent callers.

    *breakers* returns the parts that are known without a check.
    """

    def __init__(
        self,
        *,
        check: Callable[[], Awaitable[Health]],
        breakers: Callable[[], Health] = dict,
        ttl: timedelta = RESULT_TTL,
    ) -> None:
        self._check = check
        self._breakers = breakers
        self._ttl_s = ttl.total_seconds()
        self._checking: SingleFlight[None, Health] = SingleFlight()
        self._last: Health = {}
        self._good_until = 0.0

    async def health(self) -> Health:
        """Return the health, at most *ttl* old."""
        if time.monotonic() >= self._good_until:
            await self._checking.join_or_start(None, self._refresh)
        return {**self._last, **self._breakers()}

    async def _refresh(self) -> Health:
        health = await self._check()
        for part, error in health.items():
            if error:
                log.warning("heartbeat.failed", part=part, reason=error.reason, **error.log_fields)
        self._last = {
            part: error.without_frames() if error else None for part, error in health.items()
        }
        self._good_until = time.monotonic() + self._ttl_s
        return self._last


def render_heartbeat(health: Health) -> tuple[int, dict[str, object]]:
    """Return the status and the JSON body of Dockerflow's ``/__heartbeat__``."""
    levels = {part: _level(part, health) for part in health}
    worst = max(levels.values())
    body: dict[str, object] = {
        "status": worst.name.lower(),
        "checks": {part: level.name.lower() for part, level in levels.items()},
        "details": {part: _details(level, health[part]) for part, level in levels.items()},
    }
    return (500 if worst is Level.ERROR else 200), body


def _level(part: str, health: Health) -> Level:
    """Return how bad the error of *part* is. A failed region is a warning while another works.

    A breaker is a warning, too: its source or region may have other parts.
    """
    if health[part] is None:
        return Level.OK
    if part == _WORKER or part.startswith(_BREAKER):
        return Level.WARNING
    regions = [error for other, error in health.items() if other.startswith(_REGION)]
    return Level.WARNING if part.startswith(_REGION) and None in regions else Level.ERROR


def _details(level: Level, error: ArchiverError | None) -> dict[str, object]:
    messages = {error.code: error.reason} if error else {}
    return {"status": level.name.lower(), "level": int(level), "messages": messages}
