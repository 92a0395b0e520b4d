"""The index and the queue of one process."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from archiver.errors import ArchiverError, EngineUnavailable, LeaseLost
from archiver.health import WorkerReport
from archiver.model import Archive, Copies, EnqueueOutcome, Region, rev_hash
from archiver.ports.index import Resolved
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.notifications import Notifications
from archiver.service import Archiver
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, TaskState

FAILURE_TTL = timedelta(seconds=10)


class MemoryIndex:
    """An index of one process. With *storage*, it asks the buckets about what it does not know.

    ``digests`` lie open, for a test to make them wrong; ``outage`` is why they cannot be asked.
    ``shared`` are the revs that other processes would know of.
    """

    def __init__(
        self, *, storage: Storage | None = None, notifications: Notifications | None = None
    ) -> None:
        self._storage = storage
        self._notifications = notifications or Notifications()
        self._copies: dict[str, Copies] = {}
        self.digests: dict[str, list[Archive]] = {}
        self.outage: ArchiverError | None = None
        self._nodes: dict[tuple[str, str, str], Resolved] = {}
        self.shared: set[tuple[str, str, str]] = set()

    async def copies(
        self,
        archive: Archive,
        *,
        since: datetime | None = None,  # noqa: ARG002 - no absence is remembered
    ) -> Copies | None:
        if archive.key not in self._copies and self._storage:
            found = await self._storage.find(archive)
            if found.copies:
                await self.record(archive, found.copies)
        return self._copies.get(archive.key)

    async def record(self, archive: Archive, copies: Copies) -> None:
        self._copies[archive.key] = copies
        named = self.digests.setdefault(copies.manifest.sha256, [])
        if archive in named:
            named.remove(archive)
        named.insert(0, archive)
        self._notifications.publish(archive.key_hash)

    async def forget(self, archive: Archive) -> None:
        """Have the buckets asked again, as after a check that found a copy gone."""
        self._copies.pop(archive.key, None)
        self._notifications.publish(archive.key_hash)

    async def by_sha256(self, sha256: str) -> Sequence[Archive]:
        if self.outage:
            raise self.outage
        return tuple(self.digests.get(sha256, ()))

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        return self._nodes.get((source, repo, rev))

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        if share:
            self.shared.add((source, repo, rev))
        self._nodes[source, repo, rev] = resolved
        self._notifications.publish(rev_hash(source, repo, rev))


class FakeAttempt:
    """A hold on a task that lasts until ``lost`` is set. ``reports`` keeps what it said."""

    def __init__(
        self, *, archive: Archive, on_report: Callable[[Phase, int], None] | None = None
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self.lost = False
        self.reports: list[tuple[Phase, int]] = []
        self._on_report = on_report

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.reports.append((phase, bytes_done))
        if self._on_report:
            self._on_report(phase, bytes_done)

    async def hold(self) -> None:
        if self.lost:
            raise LeaseLost("another worker has the task")


class MemoryEngine:
    """A queue of one process. ``down`` makes it unavailable; ``reports`` are those of its workers.

    A worker is whoever calls ``claim`` and then ``succeed``, ``retry`` or ``fail``; or ``work``,
    which does all of it for whatever is queued. ``asked`` counts the questions about tasks;
    ``mean`` is how long it took to make the last archive for which a client may have waited.
    """

    def __init__(self) -> None:
        self.down = False
        self.asked = 0
        self.mean: timedelta | None = None
        self.notifications = Notifications()
        self.tasks: dict[str, Task] = {}
        self.reports: list[WorkerReport] = [WorkerReport(name="worker:1", regions={})]
        self.repairs: dict[str, tuple[Region, ...]] = {}
        self._priorities: dict[str, Priority] = {}
        self._queues: dict[Priority, list[str]] = {priority: [] for priority in Priority}
        self._failures: BoundedCache[str, Failure] = BoundedCache(
            ttl=FAILURE_TTL, max_bytes=MEGABYTE
        )

    async def enqueue(
        self, archive: Archive, *, priority: Priority = Priority.HIGH
    ) -> EnqueueOutcome:
        self._raise_if_down()
        known = self.tasks.get(archive.key)
        if known and not known.state.terminal:
            return EnqueueOutcome.JOINED
        now = datetime.now(UTC)
        self.tasks[archive.key] = Task(
            archive=archive,
            state=TaskState.PENDING,
            phase=Phase.QUEUED,
            created_at=now,
            updated_at=now,
        )
        self._priorities[archive.key] = priority
        self._queues[priority].append(archive.key)
        return EnqueueOutcome.CREATED

    async def task(self, archive: Archive) -> Task | None:
        self.asked += 1
        self._raise_if_down()
        return self.tasks.get(archive.key)

    async def backlog(self, source: str) -> Backlog | None:
        states = [task.state for task in self.tasks.values() if task.archive.source == source]
        waiting = states.count(TaskState.PENDING) + states.count(TaskState.RETRY)
        running = states.count(TaskState.STARTED)
        return None if self.down else Backlog(waiting=waiting, running=running, mean=self.mean)

    def recent_failure(self, archive: Archive) -> Failure | None:
        return self._failures.get(archive.key)

    async def repair_later(self, archive: Archive, missing: Sequence[Region]) -> None:
        self._raise_if_down()
        self.repairs[archive.key] = tuple(missing)

    async def repaired(self, archive: Archive) -> None:
        self._raise_if_down()
        self.repairs.pop(archive.key, None)

    async def workers(self) -> Sequence[WorkerReport]:
        self._raise_if_down()
        return tuple(self.reports)

    async def check(self) -> ArchiverError | None:
        return EngineUnavailable("the engine does not answer") if self.down else None

    def claim(self) -> FakeAttempt | None:
        """Return a hold on the next task, of high priority first; None when there is none."""
        for queue in self._queues.values():
            if queue:
                task = self.tasks[queue.pop(0)]
                self._change(
                    task.archive,
                    state=TaskState.STARTED,
                    phase=Phase.CONNECTING,
                    attempt=task.attempt + 1,
                    started_at=datetime.now(UTC),
                )
                return FakeAttempt(archive=task.archive, on_report=self._reporter(task.archive))
        return None

    def _reporter(self, archive: Archive) -> Callable[[Phase, int], None]:
        return lambda phase, bytes_done: self._change(archive, phase=phase, bytes_done=bytes_done)

    def succeed(self, attempt: FakeAttempt) -> None:
        key = attempt.archive.key
        made = self.tasks[key].phase is Phase.COMMITTING
        self._change(attempt.archive, state=TaskState.SUCCESS, phase=Phase.DONE, error=None)
        task = self.tasks[key]
        if made and self._priorities[key] is Priority.HIGH and task.started_at and task.updated_at:
            self.mean = task.updated_at - task.started_at

    def retry(self, attempt: FakeAttempt, exc: ArchiverError) -> None:
        self._failed(attempt, exc, state=TaskState.RETRY, phase=Phase.WAITING)
        key = attempt.archive.key
        self._queues[self._priorities[key]].append(key)

    def fail(self, attempt: FakeAttempt, exc: ArchiverError) -> None:
        self._failed(attempt, exc, state=TaskState.FAILURE, phase=Phase.DONE)
        if not exc.retryable:
            self._failures.put(attempt.archive.key, Failure(code=exc.code, message=exc.message))
            self.notifications.publish(attempt.archive.key_hash)

    async def work(self, archiver: Archiver, *, max_failures: int = 5) -> None:
        """Build what is queued, and what comes to be queued meanwhile, until nothing is."""
        while attempt := self.claim():
            try:
                await archiver.build(attempt.archive, attempt)
            except ArchiverError as exc:
                failures = self.tasks[attempt.archive.key].failures + 1
                again = exc.retryable and failures < max_failures
                (self.retry if again else self.fail)(attempt, exc)
            else:
                self.succeed(attempt)

    def _failed(
        self, attempt: FakeAttempt, exc: ArchiverError, *, state: TaskState, phase: Phase
    ) -> None:
        self._change(
            attempt.archive,
            state=state,
            phase=phase,
            failures=self.tasks[attempt.archive.key].failures + 1,
            error=Failure(code=exc.code, message=exc.message),
        )

    def _change(self, archive: Archive, **changes: object) -> None:
        task = self.tasks[archive.key]
        self.tasks[archive.key] = replace(task, **changes, updated_at=datetime.now(UTC))  # type: ignore[arg-type]
        self.notifications.publish(archive.key_hash)

    def _raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")
