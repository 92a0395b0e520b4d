"""Claims tasks and runs them: decides what is retried, what has failed, and what is handed back."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from archiver.errors import (
    ArchiverError,
    BadArchive,
    EngineUnavailable,
    InternalError,
    LeaseLost,
    SourceError,
    WorkersLost,
)
from archiver.jetstream import retry
from archiver.jetstream.buckets import TASKS
from archiver.jetstream.claims import Claim
from archiver.jetstream.connection import Connection
from archiver.jetstream.dispatch import Dispatcher
from archiver.jetstream.lanes import Lane
from archiver.jetstream.records import decode_order
from archiver.jetstream.repairs import Repairs
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.runtime.tasks import cancel_and_wait
from archiver.tasks import Priority
from archiver.telemetry import METRICS, describe, log

Build = Callable[[Archive, Attempt], Coroutine[Any, Any, Copies]]
"""``service.Archiver.build``."""


BROKEN = "Archiver failed; its log says why"

ABORT_TIME = timedelta(seconds=15)
"""What a build may need to abort its uploads; it must not be disturbed while it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a worker works. ``caps`` are, by source, the attempts at a time of the whole fleet."""

    caps: Mapping[str, int]
    concurrency: int
    lease: timedelta
    grace: timedelta
    max_failures: int
    retry_base: timedelta


class Worker:
    """Runs up to ``policy.concurrency`` attempts at a time, of any source and priority."""

    def __init__(
        self, *, build: Build, connection: Connection, repairs: Repairs, policy: Policy
    ) -> None:
        self._builds = build
        self._connection = connection
        self._repairs = repairs
        self._policy = policy
        self._attempts: set[asyncio.Task[None]] = set()
        self._dispatcher = Dispatcher(
            connection=connection,
            lanes=self._lanes(),
            slots=policy.concurrency,
            start=self._start,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until *stopping*; then let attempts end for a while, and hand back the others.

        This can be called once.
        """
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(self._repairs.run())
            dispatching = group.create_task(self._dispatcher.run())
            await stopping.wait()
            self._dispatcher.close()
            await cancel_and_wait(sweeping, dispatching)
            await self._drain()
            await self._dispatcher.leave()

    def _lanes(self) -> list[Lane]:
        return [
            Lane(
                connection=self._connection,
                source=source,
                priority=priority,
                concurrency=cap,
                lease=self._policy.lease,
            )
            for priority in Priority
            for source, cap in self._policy.caps.items()
        ]

    def _start(self, message: Msg) -> None:
        attempt = asyncio.create_task(self._attempt(message))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._ended)

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._dispatcher.freed()
        if not attempt.cancelled() and (exc := attempt.exception()):
            log.error("attempt.broken", exc_info=exc)

    async def _drain(self) -> None:
        if self._attempts:
            log.info("worker.draining", attempts=len(self._attempts))
            await asyncio.wait(self._attempts, timeout=self._policy.grace.total_seconds())
        await cancel_and_wait(*self._attempts, insist_after=ABORT_TIME)

    async def _attempt(self, message: Msg) -> None:
        order = decode_order(message.data)
        archive = order.archive(message.subject) if order else None
        if order is None or archive is None:
            await self._refuse(message)
            return
        claim = Claim(
            connection=self._connection,
            message=message,
            order=order,
            archive=archive,
            lease=self._policy.lease,
        )
        try:
            await self._pursue(claim)
        except (LeaseLost, EngineUnavailable, TimeoutError) as exc:
            log.warning("task.let_go", key=archive.key, cause=describe(exc))

    async def _pursue(self, claim: Claim) -> None:
        """Claim and run. If a fault of ours keeps the task from being claimed, its lease runs out.

        Raises:
            LeaseLost, EngineUnavailable, TimeoutError: It will be handed out again, or was.
        """
        try:
            if await claim.take():
                await self._run(claim)
        except (LeaseLost, EngineUnavailable, TimeoutError):
            raise
        except WorkersLost as exc:
            await self._fail(claim, exc, time.monotonic())
        except Exception as exc:  # noqa: BLE001 - a fault of ours must not hold a seat for ever
            log.error("attempt.broken", key=claim.archive.key, exc_info=exc)
            if claim.is_open:
                await self._fail(claim, InternalError(BROKEN), time.monotonic())

    async def _refuse(self, message: Msg) -> None:
        """Have the queue forget a message that asks for nothing that could be built."""
        digest, sequence = message.subject.rpartition(".")[2], message.metadata.sequence.stream
        self._connection.note_unreadable(TASKS, digest, sequence)
        with suppress(nats.errors.Error, OSError):
            await message.term()

    async def _run(self, claim: Claim) -> None:
        """Build, and end the claim in the way that fits: the one place where a worker decides."""
        started = time.monotonic()
        running = METRICS.attempts_running.labels(source=claim.archive.source)
        running.inc()
        try:
            copies = await self._build(claim)
        except asyncio.CancelledError:
            await claim.hand_back()
            self._tell("handed_back", claim, started)
            raise
        except LeaseLost:
            self._tell("lost", claim, started)
        except ArchiverError as exc:
            await self._retry_or_fail(claim, exc, started)
        except Exception as exc:  # noqa: BLE001 - a fault of ours must end in FAILURE, not in silence
            log.error("attempt.broken", key=claim.archive.key, exc_info=exc)
            await self._fail(claim, InternalError(BROKEN), started)
        else:
            await claim.succeed()
            self._tell_success(claim, started, copies)
        finally:
            running.dec()

    async def _build(self, claim: Claim) -> Copies:
        """Build for as long as the lease is kept."""
        building = asyncio.create_task(self._builds(claim.archive, claim))
        keeping = asyncio.create_task(claim.keep())
        try:
            await asyncio.wait({building, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            return building.result()
        finally:
            building.cancel()
            await asyncio.wait({building})
            await cancel_and_wait(keeping)

    async def _retry_or_fail(self, claim: Claim, error: ArchiverError, started: float) -> None:
        if isinstance(error, (SourceError, BadArchive)):
            METRICS.source_errors.labels(source=claim.archive.source, code=error.code).inc()
        if error.ours:
            await self._wait_or_fail(claim, error, started)
            return
        failures = claim.failures + 1
        if not error.retryable or failures >= self._policy.max_failures:
            await self._fail(claim, error, started)
            return
        wait = retry.delay(failures, error, base=self._policy.retry_base)
        await claim.retry(error, after=wait)
        self._tell("retried", claim, started, error, wait_s=round(wait.total_seconds(), 3))

    async def _wait_or_fail(self, claim: Claim, error: ArchiverError, started: float) -> None:
        """Let the task wait for the end of an outage of ours, which it is not to blame for."""
        outage = claim.outage()
        if outage.outlasts_patience:
            await self._fail(claim, error, started)
            return
        wait = retry.outage_delay(outage, base=self._policy.retry_base)
        await claim.wait(error, after=wait)
        level = logging.INFO if outage.lasted else logging.WARNING  # its beginning is news
        wait_s = round(wait.total_seconds(), 3)
        self._tell("waiting", claim, started, error, level=level, wait_s=wait_s)

    async def _fail(self, claim: Claim, error: ArchiverError, started: float) -> None:
        await claim.fail(error)
        self._tell("failed", claim, started, error)

    def _tell_success(self, claim: Claim, started: float, copies: Copies) -> None:
        size_bytes = copies.manifest.size_bytes
        self._tell("succeeded", claim, started, size_bytes=size_bytes, regions=copies.regions)

    def _tell(
        self,
        outcome: str,
        claim: Claim,
        started: float,
        error: ArchiverError | None = None,
        *,
        level: int | None = None,
        **fields: object,
    ) -> None:
        """Write the attempt's one line, and count it."""
        source = claim.archive.source
        duration = time.monotonic() - started
        METRICS.attempts.labels(source=source, outcome=outcome).inc()
        METRICS.attempt_duration.labels(source=source, outcome=outcome).observe(duration)
        if error:
            fields |= {**error.log_fields, "reason": error.message, "cause": describe(error)}
        log.log(
            level or _LEVELS.get(outcome, logging.INFO),
            f"task.{outcome}",
            key=claim.archive.key,
            attempt=claim.attempt,
            duration_s=round(duration, 3),
            **fields,
        )


_LEVELS = {"retried": logging.WARNING, "failed": logging.ERROR, "lost": logging.WARNING}
