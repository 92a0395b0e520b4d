"""The queue, its repair list and its fleet, in the memory of one process."""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

from archiver.errors import ArchiverError, EngineUnavailable
from archiver.model import Archive, EnqueueOutcome, Region, parse_key
from archiver.ports.queue import Repair, WorkerReport
from archiver.service import Archiver
from archiver.tasks import Backlog, Priority, Task, TaskState
from archiver.testing.tasks import MemoryTasks
from archiver.testing.work_queue import MemoryWorkQueue
from archiver.worker.worker import Policy, Worker


class MemoryEngine(MemoryTasks):
    """Implements ``TaskQueue``, ``RepairList`` and ``Fleet``. ``down`` makes it unavailable.

    ``reports`` are those of its workers, ``asked`` counts calls of ``task``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.asked = 0
        self.reports: list[WorkerReport] = [WorkerReport(name="worker:1", regions={})]
        self.repairs: dict[str, tuple[Region, ...]] = {}
        self._due: dict[str, tuple[datetime, int]] = {}

    async def enqueue(
        self, archive: Archive, *, priority: Priority = Priority.HIGH
    ) -> EnqueueOutcome:
        self._raise_if_down()
        known = self.tasks.get(archive.key)
        if known and not known.state.terminal:
            return EnqueueOutcome.JOINED
        self.add(archive, priority)
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

    async def note(self, archive: Archive, missing: Sequence[Region]) -> None:
        self._raise_if_down()
        self.repairs[archive.key] = tuple(missing)
        self._due.setdefault(archive.key, (datetime.now(UTC), 0))

    async def forget(self, archive: Archive) -> None:
        self._raise_if_down()
        self.repairs.pop(archive.key, None)
        self._due.pop(archive.key, None)

    async def due(self) -> AsyncGenerator[Repair, None]:
        self._raise_if_down()
        for key, (due_at, tries) in tuple(self._due.items()):
            archive = parse_key(key)
            if archive and due_at <= datetime.now(UTC):
                missing = self.repairs[key]
                yield Repair(archive=archive, missing=missing, tries=tries, revision=tries)

    async def postpone(self, repair: Repair, *, until: datetime) -> bool:
        self._raise_if_down()
        _, tries = self._due.get(repair.archive.key, (until, None))
        if tries != repair.revision:
            return False
        self._due[repair.archive.key] = until, repair.tries + 1
        return True

    async def workers(self) -> Sequence[WorkerReport]:
        self._raise_if_down()
        return tuple(self.reports)

    async def check(self) -> ArchiverError | None:
        return EngineUnavailable("the engine does not answer") if self.down else None

    async def work(self, archiver: Archiver, *, max_failures: int = 5) -> None:
        """Build all queued tasks, including tasks that are queued during the call.

        Retries come at once. A task that waits for an outage is left for the next call.
        """
        queue = MemoryWorkQueue(self, ends_when_empty=True)
        policy = Policy(
            concurrency=1,
            grace=timedelta(0),
            max_failures=max_failures,
            retry_base=timedelta(0),
        )
        await Worker(build=archiver.build, queue=queue, policy=policy).work()
        queue.release_waiting()

    def _raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")
