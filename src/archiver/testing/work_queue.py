"""A work queue in the memory of one process, for real workers."""

import asyncio
from datetime import timedelta

from archiver.errors import ArchiverError, LeaseLost
from archiver.model import Archive
from archiver.ports.queue import OutageHistory
from archiver.tasks import Phase, Urgency, preferred
from archiver.testing.engine import FakeAttempt, MemoryEngine

LEASE = timedelta(seconds=20)
RENEWALS_PER_LEASE = 4


class MemoryWorkQueue:
    """Implements ``ports.queue.WorkQueue``.

    With *ends_when_empty*, claims end when no task is left, retries come at once, and tasks that
    wait for an outage stay away until ``release_waiting``.
    """

    def __init__(
        self, engine: MemoryEngine, *, lease: timedelta = LEASE, ends_when_empty: bool = False
    ) -> None:
        self.engine = engine
        self.lease = lease
        self._ends_when_empty = ends_when_empty
        self._closed = False
        self._claimed = 0
        self._changed = asyncio.Event()
        self._waiting: list[Archive] = []
        engine.offered.add(self._changed.set)

    async def claim(self) -> "MemoryLease | None":
        while not self._closed:
            self._changed.clear()
            if attempt := self.engine.claim(preferred(self._claimed)):
                self._claimed += 1
                return MemoryLease(self, attempt)
            if self._ends_when_empty:
                return None
            await self._changed.wait()
        return None

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    def offer_later(self, archive: Archive, after: timedelta, *, outage: bool = False) -> None:
        if not self._ends_when_empty:
            loop = asyncio.get_running_loop()
            loop.call_later(after.total_seconds(), self.engine.requeue, archive)
        elif outage:
            self._waiting.append(archive)
        else:
            self.engine.requeue(archive)

    def release_waiting(self) -> None:
        """Offer the tasks that wait for the end of an outage."""
        while self._waiting:
            self.engine.requeue(self._waiting.pop())


class MemoryLease:
    """Implements ``ports.queue.Lease``. It runs out like a real one, unless it is renewed."""

    def __init__(self, queue: MemoryWorkQueue, attempt: FakeAttempt) -> None:
        self.id = attempt.id
        self.archive = attempt.archive
        self.phase = Phase.CONNECTING
        self.is_open = True
        self._queue = queue
        self._engine = queue.engine
        self._fake = attempt
        task = self._engine.tasks[self.archive.key]
        self.attempt = task.attempt
        self.failures = task.failures
        self.announced = self._engine.urgencies[self.archive.key] is Urgency.ANNOUNCED
        self.priority = self._engine.priority(self.archive)
        self.traceparent = ""
        self.vanished = self._engine.vanished.get(self.archive.key, 0)
        self.outages = self._engine.outages.get(self.archive.key, OutageHistory())
        self._start_timer()

    def _start_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            self._queue.lease.total_seconds(), self._engine.requeue, self.archive
        )

    def _require_held(self) -> None:
        if self._engine.tasks[self.archive.key].attempt != self.attempt:
            raise LeaseLost("another worker has claimed this task")

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.phase = phase
        if self._engine.tasks[self.archive.key].attempt == self.attempt:
            self._fake.report(phase, bytes_done)

    async def prove_lease(self) -> None:
        self._require_held()

    async def keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(self._queue.lease.total_seconds() / RENEWALS_PER_LEASE)
            self._require_held()
            self._timer.cancel()
            self._engine.withdraw(self.archive)
            self._start_timer()

    async def succeed(self) -> None:
        self._require_held()
        self._engine.succeed(self._fake)
        self._end()

    async def fail(self, error: ArchiverError) -> None:
        self._require_held()
        self._engine.fail(self._fake, error)
        self._end()

    async def retry(self, error: ArchiverError, *, after: timedelta) -> None:
        outages = OutageHistory(spoiled=self.outages.spoiled)
        self._give_back(error, failures=self.failures + 1, outages=outages)
        self._queue.offer_later(self.archive, after)

    async def postpone(
        self, error: ArchiverError, *, outages: OutageHistory, after: timedelta
    ) -> None:
        self._give_back(error, failures=self.failures, outages=outages)
        self._queue.offer_later(self.archive, after, outage=True)

    async def hand_back(self) -> None:
        self._give_back(None, failures=self.failures, outages=self.outages)
        self._engine.requeue(self.archive)

    def _give_back(
        self, error: ArchiverError | None, *, failures: int, outages: OutageHistory
    ) -> None:
        self._require_held()
        self._engine.give_back(self.archive, error, failures=failures)
        self._engine.outages[self.archive.key] = outages
        self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._engine.withdraw(self.archive)
        self.is_open = False
