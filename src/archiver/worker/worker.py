"""A worker: slots that claim tasks, run attempts and log them, and an orderly stop."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from archiver.errors import (
    ArchiverError,
    BadArchive,
    EngineUnavailable,
    InternalError,
    LeaseLost,
    NotFound,
    SourceError,
    SourcePaused,
    UnknownRev,
    WorkersLost,
)
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt, Lease, WorkQueue
from archiver.runtime.tasks import cancel_and_wait, concurrently
from archiver.tasks import Priority
from archiver.telemetry import METRICS, describe, log
from archiver.telemetry.tracing import Kind, Span, SpanName, code_of, span
from archiver.worker import back_off
from archiver.worker.activity import Activity
from archiver.worker.counted_attempt import CountedAttempt

Build = Callable[[Archive, Attempt], Coroutine[Any, Any, Copies]]
"""``service.Archiver.build``."""

INTERNAL_ERROR = "internal error; see Archiver's log"

ABORT_TIME = timedelta(seconds=15)
"""Time for a build to abort its uploads. A second cancellation would interrupt that."""

PAUSE = timedelta(seconds=1)
"""After an unexpected error of the queue."""

VANISHED_MAX = 5
"""Workers whose lease may run out over one task before the task is taken to be the cause."""


LEVELS = {"retried": logging.WARNING, "failed": logging.ERROR, "lost": logging.WARNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a worker works. ``grace`` is the time for builds to end after a request to stop."""

    concurrency: int
    grace: timedelta
    max_failures: int
    retry_base: timedelta


class _AttemptLog:
    """Measures an attempt from now on, and logs and counts its outcome, also in its span."""

    def __init__(self, lease: Lease, attempt: Span) -> None:
        self._lease = lease
        self.span = attempt
        self._began = time.monotonic()

    def write(
        self,
        outcome: str,
        error: ArchiverError | None = None,
        *,
        level: int | None = None,
        **fields: object,
    ) -> None:
        source = self._lease.archive.source
        duration_s = time.monotonic() - self._began
        counted = "absent" if isinstance(error, NotFound) else outcome
        METRICS.attempts.labels(source=source, outcome=counted).inc()
        METRICS.attempt_duration.labels(source=source, outcome=counted).observe(duration_s)
        self.span.set(outcome=counted)
        if error and counted == outcome:
            self.span.fail(error.code)
        if error:
            fields |= {**error.log_fields, "reason": error.message, "cause": describe(error)}
        log.log(
            level or LEVELS.get(outcome, logging.INFO),
            f"task.{outcome}",
            key=self._lease.archive.key,
            lane=self._lease.priority,
            attempt=self._lease.attempt,
            duration_s=round(duration_s, 3),
            **fields,
        )


class Worker:
    """Runs up to ``policy.concurrency`` attempts at a time, of any source and priority.

    The *queue* hands out no task of a source that *is_paused*.
    """

    def __init__(
        self,
        *,
        build: Build,
        queue: WorkQueue,
        policy: Policy,
        activity: Activity | None = None,
        is_paused: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._build = build
        self._queue = queue
        self._policy = policy
        self._is_paused = is_paused
        self._activity = activity or Activity()

    async def work(self) -> None:
        """Work until the activity is to end. Then wait for attempts, and hand back the rest."""
        slots = [
            asyncio.create_task(self.work_until_closed()) for _ in range(self._policy.concurrency)
        ]
        try:
            await self._activity.draining.wait()
            self._queue.close()
            log.info("worker.draining", attempts=len(self._activity.running))
            await self._wait_for(slots)
        finally:
            await cancel_and_wait(*slots, insist_after=ABORT_TIME)

    async def _wait_for(self, slots: Sequence[asyncio.Task[None]]) -> None:
        """Wait until *slots* are done; once the worker stops, no longer than its grace."""
        activity, grace_s = self._activity, self._policy.grace.total_seconds()
        async with concurrently(activity.stopping.wait()) as stopping:
            await _either(stopping, slots)
        if not activity.stopping.is_set():
            return
        async with concurrently(activity.hurrying.wait()) as hurrying:
            await _either(hurrying, slots, within_s=grace_s)

    async def work_until_closed(self) -> None:
        """Run one attempt after the other until the queue is closed."""
        while True:
            try:
                lease = await self._queue.claim()
                if lease is None:
                    return
                await self._attempt(lease)
            except Exception as exc:  # noqa: BLE001 - a slot must survive any attempt
                log.error("attempt.broken", exc_info=exc)
                await asyncio.sleep(PAUSE.total_seconds())

    async def _attempt(self, lease: Lease) -> None:
        """Run an attempt. If its end cannot be recorded, the lease runs out."""
        with _attempt_span(lease) as attempt:
            await self._attempt_in(attempt, lease)

    async def _attempt_in(self, attempt: Span, lease: Lease) -> None:
        line = _AttemptLog(lease, attempt)
        try:
            with self._activity.attempt(lease.archive):
                await self._build_and_end(lease, line)
        except (LeaseLost, EngineUnavailable, TimeoutError) as exc:
            attempt.fail(code_of(exc))
            log.warning("task.let_go", key=lease.archive.key, cause=describe(exc))
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not hold the task permanently
            log.error("attempt.broken", key=lease.archive.key, exc_info=exc)
            if lease.is_open:
                await self._fail(lease, InternalError(INTERNAL_ERROR), line)

    async def _build_and_end(self, lease: Lease, line: _AttemptLog) -> None:
        """Build, and end the attempt as the outcome requires: the one place that decides."""
        if lease.vanished >= VANISHED_MAX:
            lost = WorkersLost(f"{lease.vanished} workers vanished while they ran this task")
            await self._fail(lease, lost, line)
            return
        try:
            with METRICS.attempts_running.labels(source=lease.archive.source).track_inprogress():
                copies = await self._build_under(lease)
        except asyncio.CancelledError:
            await lease.hand_back()
            line.write("handed_back")
            raise
        except LeaseLost:
            line.write("lost")
        except ArchiverError as exc:
            await self._retry_or_fail(lease, exc, line)
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not hold the task permanently
            log.error("attempt.broken", key=lease.archive.key, exc_info=exc)
            await self._fail(lease, InternalError(INTERNAL_ERROR), line)
        else:
            await lease.succeed()
            size_bytes = copies.manifest.size_bytes
            line.span.set(size_bytes=size_bytes, regions=copies.regions)
            line.write("succeeded", size_bytes=size_bytes, regions=copies.regions)

    async def _build_under(self, lease: Lease) -> Copies:
        with CountedAttempt(lease) as attempt:
            building = asyncio.create_task(self._build(lease.archive, attempt))
            renewing = asyncio.create_task(lease.keep_renewed())
            try:
                await asyncio.wait({building, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if renewing.done():
                    renewing.result()
                return building.result()
            finally:
                building.cancel()
                await asyncio.wait({building})
                await cancel_and_wait(renewing)

    async def _retry_or_fail(self, lease: Lease, error: ArchiverError, line: _AttemptLog) -> None:
        if isinstance(error, SourcePaused):
            await self._wait_for_host(lease, error, line)
            return
        if isinstance(error, (SourceError, BadArchive)):
            source = error.part.source if error.part else lease.archive.source
            METRICS.source_errors.labels(source=source, code=error.code).inc()
        if error.ours:
            await self._wait_or_fail(lease, error, line)
            return
        failures = lease.failures + 1
        # The servers of a host may not all have yet what one of them has announced.
        retryable = error.retryable or (lease.announced and isinstance(error, UnknownRev))
        if not retryable or failures >= self._policy.max_failures:
            await self._fail(lease, error, line)
            return
        after = self._delay(lease, back_off.delay(failures, error, base=self._policy.retry_base))
        await lease.retry(error, after=after)
        line.write("retried", error, wait_s=round(after.total_seconds(), 3))

    def _delay(self, lease: Lease, delay: timedelta) -> timedelta:
        """Return *delay*, or none if the source is paused: a delayed task keeps its seat.

        A task of low priority would be handed out again at once.
        """
        waits = lease.priority is not Priority.LOW and self._is_paused(lease.archive.source)
        return timedelta(0) if waits else delay

    async def _wait_for_host(self, lease: Lease, error: SourcePaused, line: _AttemptLog) -> None:
        """Have the task wait for the end of a pause, in which its attempt has asked no host."""
        wait = back_off.HostWait.of(lease)
        if wait.outlasts_patience:
            await self._fail(lease, error, line)
            return
        after = self._delay(lease, back_off.pause_delay(error))
        await lease.postpone(error, outages=wait.history, after=after)
        line.write("waiting", error, wait_s=round(after.total_seconds(), 3))

    async def _wait_or_fail(self, lease: Lease, error: ArchiverError, line: _AttemptLog) -> None:
        """Have the task wait for the end of an outage of ours, which is not its fault."""
        outage = back_off.Outage.of(lease)
        if outage.outlasts_patience:
            await self._fail(lease, error, line)
            return
        after = back_off.outage_delay(outage, base=self._policy.retry_base)
        await lease.postpone(error, outages=outage.history, after=after)
        level = logging.INFO if outage.lasted else logging.WARNING  # a warning only the first time
        line.write("waiting", error, level=level, wait_s=round(after.total_seconds(), 3))

    async def _fail(self, lease: Lease, error: ArchiverError, line: _AttemptLog) -> None:
        await lease.fail(error)
        level = logging.INFO if isinstance(error, NotFound) else None  # the client's mistake
        line.write("failed", error, level=level)


def _attempt_span(lease: Lease) -> Span:
    """Return the span of an attempt: a trace of its own, because many requests may wait for it."""
    return span(
        SpanName.ATTEMPT,
        kind=Kind.CONSUMER,
        link=lease.traceparent,
        key=lease.archive.key,
        source=lease.archive.source,
        attempt=lease.attempt,
    )


async def _either(
    one: asyncio.Task[bool], slots: Sequence[asyncio.Task[None]], *, within_s: float | None = None
) -> None:
    """Return when *one* or all *slots* are done, or after a time."""
    pending: set[asyncio.Task[Any]] = {one, *slots}
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while one in pending and len(pending) > 1:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
