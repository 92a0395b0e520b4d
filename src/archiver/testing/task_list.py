"""The tasks of a queue in memory, as operators list them."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from archiver.ports.task_list import ListedTask, Queued
from archiver.tasks import Phase, Task, TaskState
from archiver.testing.engine import MemoryEngine


class MemoryTaskList:
    """Implements ``ports.task_list.TaskList`` with the tasks of a ``MemoryEngine``."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    async def queued(self, source: str | None = None) -> AsyncGenerator[Queued, None]:
        for task in await self._listed(source):
            if not task.state.terminal:
                archive = task.archive
                holder = self._engine.clients[archive.key] or "-"
                yield Queued(source=archive.source, holder=holder, key_hash=archive.key_hash)

    async def oldest(self, source: str | None = None) -> AsyncGenerator[ListedTask, None]:
        for task in sorted(await self._listed(source), key=_created):
            if not task.state.terminal:
                waiting = Task(
                    archive=task.archive,
                    state=TaskState.PENDING,
                    phase=Phase.QUEUED,
                    created_at=task.created_at,
                )
                yield self._with_client(waiting)

    async def client(self, holder: str) -> str:
        names = self._engine.clients.values()
        return holder if holder in names else ""

    async def window(self, *, at_most: int) -> datetime | None:
        changed = sorted(_changed(task) for task in await self._listed(None))
        return None if len(changed) <= at_most else changed[-at_most]

    async def recorded(
        self, source: str | None = None, *, since: datetime | None = None
    ) -> AsyncGenerator[ListedTask, None]:
        for task in sorted(await self._listed(source), key=_changed):
            claimed = task.state is not TaskState.PENDING
            if claimed and (since is None or _changed(task) >= since):
                yield self._with_client(task)

    async def _listed(self, source: str | None) -> list[Task]:
        self._engine.raise_if_down()
        tasks = self._engine.tasks.values()
        return [task for task in tasks if source in {None, task.archive.source}]

    def _with_client(self, task: Task) -> ListedTask:
        return ListedTask(task=task, client=self._engine.clients[task.archive.key])


def _created(task: Task) -> datetime:
    return task.created_at or datetime.now(UTC)


def _changed(task: Task) -> datetime:
    return task.updated_at or datetime.now(UTC)
