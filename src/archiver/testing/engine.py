"""The queue, its repair list and its fleet, in the memory of one process."""

import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

from archiver.errors import ArchiverError, EngineFull, EngineUnavailable, LeaseLost
from archiver.model import Archive, EnqueueOutcome, Region, parse_key
from archiver.ports.queue import Admit, OutageHistory, Repair, Standing, WorkerReport
from archiver.runtime.allowance import Allowance
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.notifications import Notifications, Subscribers
from archiver.tasks import (
    LIGHT_MAX,
    PROMOTED_WITHIN,
    Backlog,
    Failure,
    Phase,
    Priority,
    Task,
    TaskState,
    Urgency,
)

FAILURE_TTL = timedelta(seconds=10)


class FakeAttempt:
    """An attempt that holds its lease until ``lost`` is set. ``reports`` has its progress."""

    def __init__(
        self, *, archive: Archive, on_report: Callable[[Archive, Phase, int], None] | None = None
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self.lost = False
        self.reports: list[tuple[Phase, int]] = []
        self._on_report = on_report

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.reports.append((phase, bytes_done))
        if self._on_report:
            self._on_report(self.archive, phase, bytes_done)

    async def prove_lease(self) -> None:
        if self.lost:
            raise LeaseLost("another worker has claimed this task")


class MemoryEngine:
    """Implements ``TaskQueue``, ``RepairList``, ``Counters`` and ``Fleet``.

    ``down`` makes it unavailable, and ``full`` unable to store another task.

    A test acts as a worker by ``claim`` and then ``succeed``, ``retry`` or ``fail``. ``mean`` is
    the duration of the last build for which a client may have waited, ``reports`` are those of the
    workers, ``clients`` and ``urgencies`` those of the tasks by key, and ``asked`` counts calls of
    ``task``.
    """

    def __init__(self) -> None:
        self.down = False
        self.full = False
        self.asked = 0
        self.mean: timedelta | None = None
        self.reports = [WorkerReport(name="worker:1", regions={}, draining=False)]
        self.notifications = Notifications()
        self.offered: Subscribers[[]] = Subscribers()
        self.tasks: dict[str, Task] = {}
        self.outages: dict[str, OutageHistory] = {}
        self.vanished: dict[str, int] = {}
        self.repairs: dict[str, tuple[Region, ...]] = {}
        self.lacking: Mapping[Region, int] = {}
        self._due: dict[str, tuple[datetime, int]] = {}
        self.clients: dict[str, str] = {}
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self.urgencies: dict[str, Urgency] = {}
        self._priorities: dict[str, Priority] = {}
        self._promotions = Allowance(most=LIGHT_MAX, within=PROMOTED_WITHIN)
        self._served: dict[str, int] = {}
        self._queues: dict[Priority, list[str]] = {priority: [] for priority in Priority}
        self._deferred: list[str] = []
        self._failures: BoundedCache[str, Failure] = BoundedCache(
            ttl=FAILURE_TTL, max_bytes=MEGABYTE
        )

    async def enqueue(
        self,
        archive: Archive,
        *,
        priority: Priority = Priority.HIGH,
        client: str = "",
        admit: Admit | None = None,
        urgency: Urgency = Urgency.NOW,
        needs_host: bool = True,
    ) -> EnqueueOutcome:
        self.raise_if_down()
        known = self.tasks.get(archive.key)
        if known and not known.state.terminal:
            if client and urgency is Urgency.NOW:
                self._promote(known, client)
            return EnqueueOutcome.JOINED
        if self.full:
            raise EngineFull("the engine is full; it stores nothing new at the moment")
        if client:
            standing = self._standing(client, archive.source)
            if admit:
                await admit(standing)
            priority = _lane(standing)
        if not needs_host:
            priority = Priority.LOW
        now = datetime.now(UTC)
        self.tasks[archive.key] = Task(
            archive=archive,
            state=TaskState.PENDING,
            phase=Phase.QUEUED,
            created_at=now,
            updated_at=now,
        )
        self.outages.pop(archive.key, None)
        self.vanished.pop(archive.key, None)
        self.clients[archive.key] = client
        self.urgencies[archive.key] = urgency
        self._priorities[archive.key] = priority
        self.requeue(archive)
        return EnqueueOutcome.CREATED

    def _promote(self, task: Task, client: str) -> None:
        """Queue a deferred task, or one that waits for its client's turn, as one of *client*."""
        key = task.archive.key
        waits = task.state is TaskState.PENDING and self._priorities[key] is Priority.MIDDLE
        if task.state is TaskState.PENDING and self.urgencies[key] is not Urgency.NOW:
            self.withdraw(task.archive)
            self._priorities[key] = _lane(self._standing(client, task.archive.source))
            self.clients[key], self.urgencies[key] = client, Urgency.NOW
            self.requeue(task.archive)
        elif waits and self.clients[key] != client:
            open_tasks = self._standing(client, task.archive.source).open_tasks
            if self._promotions.take(client, besides=open_tasks):
                self.withdraw(task.archive)
                self._priorities[key] = Priority.HIGH
                self.requeue(task.archive)

    def _standing(self, client: str, source: str) -> Standing:
        waiting, open_tasks = 0, 0
        for key, task in self.tasks.items():
            open_tasks += self.clients[key] == client and not task.state.terminal
            is_waiting = task.state in {TaskState.PENDING, TaskState.RETRY}
            is_of_client = self._priorities[key] is not Priority.LOW
            waiting += task.archive.source == source and is_of_client and is_waiting
        return Standing(open_tasks=open_tasks, waiting=waiting)

    async def count(self, kind: str, client: str, *, minute: int) -> int:
        self.raise_if_down()
        self._counts[kind, client, minute] += 1
        return self._counts[kind, client, minute]

    async def task(self, archive: Archive) -> Task | None:
        self.asked += 1
        self.raise_if_down()
        return self.tasks.get(archive.key)

    async def backlog(self, archive: Archive) -> Backlog | None:
        lane = self._priorities.get(archive.key, Priority.HIGH)
        states = [
            task.state
            for key, task in self.tasks.items()
            if task.archive.source == archive.source and self._priorities[key] is lane
        ]
        waiting = states.count(TaskState.PENDING) + states.count(TaskState.RETRY)
        running = states.count(TaskState.STARTED)
        outside = lane is Priority.MIDDLE or archive.key in self._deferred
        parked = outside and bool(waiting)
        return (
            None
            if self.down
            else Backlog(waiting=waiting, running=running, mean=self.mean, parked=parked)
        )

    async def drop(self, archive: Archive) -> None:
        self.raise_if_down()
        task = self.tasks.get(archive.key)
        is_repair = self._priorities.get(archive.key) is Priority.LOW
        if task and (task.state.terminal or is_repair):
            self.withdraw(archive)
            del self.tasks[archive.key]

    async def add(self, archive: Archive, missing: Sequence[Region]) -> None:
        self.raise_if_down()
        self.repairs[archive.key] = tuple(missing)
        self._due.setdefault(archive.key, (datetime.now(UTC), 0))

    async def forget(self, archive: Archive) -> None:
        self.raise_if_down()
        self.repairs.pop(archive.key, None)
        self._due.pop(archive.key, None)

    async def due(self) -> AsyncGenerator[Repair, None]:
        self.raise_if_down()
        for key, (due_at, tries) in tuple(self._due.items()):
            archive = parse_key(key)
            if archive and due_at <= datetime.now(UTC):
                missing = self.repairs[key]
                yield Repair(archive=archive, missing=missing, tries=tries, revision=tries)
        self.lacking = Counter(chain.from_iterable(self.repairs.values()))

    async def postpone(self, repair: Repair, *, until: datetime) -> bool:
        self.raise_if_down()
        _, tries = self._due.get(repair.archive.key, (until, None))
        if tries != repair.revision:
            return False
        self._due[repair.archive.key] = until, repair.tries + 1
        return True

    async def workers(self) -> Sequence[WorkerReport]:
        self.raise_if_down()
        return tuple(self.reports)

    async def drain(self, name: str) -> WorkerReport | None:
        self.reports = [
            replace(each, draining=True) if each.name == name and each.draining is False else each
            for each in self.reports
        ]
        return await self.look_up(name)

    async def look_up(self, name: str) -> WorkerReport | None:
        self.raise_if_down()
        return next((each for each in self.reports if each.name == name), None)

    async def check_queue(self) -> ArchiverError | None:
        return EngineUnavailable("the engine does not answer") if self.down else None

    def raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")

    def recent_failure(self, archive: Archive) -> Failure | None:
        return self._failures.get(archive.key)

    def claim(self, first: Priority = Priority.HIGH) -> FakeAttempt | None:
        """Begin an attempt at the next task, *first* at one of this priority, if there is any."""
        lanes = [self._queues[lane] for lane in sorted(Priority, key=lambda one: one is not first)]
        task = next(
            (task for queue in (*lanes, self._deferred) if (task := self._next(queue))), None
        )
        if task is None:
            return None
        if task.state is TaskState.STARTED:
            self.vanished[task.archive.key] = self.vanished.get(task.archive.key, 0) + 1
        self.change(
            task.archive,
            state=TaskState.STARTED,
            phase=Phase.CONNECTING,
            attempt=task.attempt + 1,
            started_at=datetime.now(UTC),
        )
        return FakeAttempt(archive=task.archive, on_report=self._change_progress)

    def priority(self, archive: Archive) -> Priority:
        return self._priorities[archive.key]

    def _queue_of(self, archive: Archive) -> list[str]:
        is_new = self.tasks[archive.key].state is TaskState.PENDING
        if is_new and self.urgencies[archive.key] is not Urgency.NOW:
            return self._deferred
        return self._queues[self._priorities[archive.key]]

    def _next(self, queue: list[str]) -> Task | None:
        takes_turns = queue is self._queues[Priority.MIDDLE] or queue is self._deferred
        while queue:
            key = self._in_turn(queue) if takes_turns else queue[0]
            queue.remove(key)
            task = self.tasks[key]
            if not task.state.terminal:
                return task
        return None

    def _in_turn(self, queue: Sequence[str]) -> str:
        """Return the first task of the client that was not served for the longest time."""
        key = min(queue, key=lambda key: self._served.get(self.clients[key], 0))
        self._served[self.clients[key]] = sum(self._served.values()) + 1
        return key

    def _change_progress(self, archive: Archive, phase: Phase, bytes_done: int) -> None:
        self.change(archive, phase=phase, bytes_done=bytes_done)

    def succeed(self, attempt: FakeAttempt) -> None:
        key = attempt.archive.key
        built = self.tasks[key].phase is Phase.COMMITTING
        self.change(attempt.archive, state=TaskState.SUCCESS, phase=Phase.DONE, error=None)
        task = self.tasks[key]
        awaited = built and self._priorities[key] is not Priority.LOW
        if awaited and task.started_at and task.updated_at:
            self.mean = task.updated_at - task.started_at

    def retry(self, attempt: FakeAttempt, error: ArchiverError) -> None:
        """Count a failure, and queue the task again at once."""
        failures = self.tasks[attempt.archive.key].failures + 1
        self.give_back(attempt.archive, error, failures=failures)
        self.requeue(attempt.archive)

    def fail(self, attempt: FakeAttempt, error: ArchiverError) -> None:
        archive = attempt.archive
        self.change(
            archive,
            state=TaskState.FAILURE,
            phase=Phase.DONE,
            failures=self.tasks[archive.key].failures + 1,
            error=_failure(error),
        )
        if error.origins or not error.retryable:
            self._failures.put(archive.key, _failure(error))
            self.notifications.publish(archive.key_hash)

    def give_back(self, archive: Archive, error: ArchiverError | None, *, failures: int) -> None:
        """Record that the task waits for its next attempt; ``requeue`` offers it."""
        self.change(
            archive,
            state=TaskState.RETRY,
            phase=Phase.WAITING,
            failures=failures,
            error=_failure(error) if error else None,
        )

    def requeue(self, archive: Archive) -> None:
        self._queue_of(archive).append(archive.key)
        self.offered.notify()

    def withdraw(self, archive: Archive) -> None:
        """Offer the task no longer, if it was offered."""
        queue = self._queue_of(archive)
        if archive.key in queue:
            queue.remove(archive.key)

    def change(self, archive: Archive, **changes: object) -> None:
        task = self.tasks[archive.key]
        self.tasks[archive.key] = replace(task, **changes, updated_at=datetime.now(UTC))  # type: ignore[arg-type]
        self.notifications.publish(archive.key_hash)


def _lane(standing: Standing) -> Priority:
    return Priority.HIGH if standing.open_tasks < LIGHT_MAX else Priority.MIDDLE


def _failure(error: ArchiverError) -> Failure:
    """Raises UnicodeEncodeError, like the real queue, if the text is not valid Unicode."""
    error.message.encode()
    return Failure.of(error)
