"""Counts the tasks of the fleet, and names those that an operator asks about first."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from archiver.ports.task_list import ListedTask, TaskList
from archiver.tasks import TaskState

CLIENTS_MAX = 20
"""Clients with the most open tasks that a census names. Each costs a request."""

PROGRESS_INTERVAL = 1000

STATES = (TaskState.STARTED, TaskState.RETRY, TaskState.PENDING, TaskState.FAILURE)
"""In the order of a census."""

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The tasks to list: up to ``limit`` in each state, or in *state* alone, of *source* or all.

    At most about ``read_max`` tasks that were claimed are read, those that changed last. None means
    all of them. Without ``submodules``, tasks for archives with submodules are left out; they only
    count as waiting as long as they are in the queue.
    """

    state: TaskState | None = None
    source: str | None = None
    limit: int = 0
    read_max: int | None = None
    submodules: bool = True

    def includes(self, listed: ListedTask) -> bool:
        return self.submodules or not listed.task.archive.submodules

    def lists(self, state: TaskState) -> bool:
        return bool(self.limit) and self.state in {None, state}


@dataclass(slots=True, kw_only=True)
class Overview:
    """How many tasks there are, and the ``tasks`` that were wanted.

    ``counts`` are by state and source, ``codes`` by state and code of the last error. ``clients``
    are those with the most open tasks. Failed tasks count if they ended after ``since``, unless
    that is None. ``tasks`` that are open come the oldest first, failed ones the latest first.
    """

    since: datetime | None = None
    counts: Counter[tuple[TaskState, str]] = field(default_factory=Counter)
    codes: Counter[tuple[TaskState, str]] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    tasks: Sequence[ListedTask] = ()

    def count(self, listed: ListedTask) -> None:
        task = listed.task
        self.counts[task.state, task.archive.source] += 1
        if task.error:
            self.codes[task.state, task.error.code] += 1


class Census:
    """Reads the whole queue, and holds what is claimed and what was wanted: a bounded part."""

    def __init__(
        self, *, tasks: TaskList, on_progress: Callable[[int], None] = lambda _read: None
    ) -> None:
        self._tasks = tasks
        self._on_progress = on_progress

    async def take(self, wanted: Wanted) -> Overview:
        """Count all tasks, and list the wanted ones. Raises EngineUnavailable.

        A task that failed, and waits again, counts twice until a worker claims it.
        """
        overview = Overview()
        if wanted.read_max is not None:
            overview.since = await self._tasks.window(at_most=wanted.read_max)
        claimed, failed = await self._read_claimed(wanted, overview)
        running, holders = await self._count_queued(wanted, overview, claimed)
        waiting = await self._read_waiting(wanted, claimed)
        for holder, count in holders.most_common(CLIENTS_MAX):
            if name := await self._tasks.client(holder):
                overview.clients[name] += count
        overview.tasks = [*_in_order(wanted, running), *waiting, *failed]
        return overview

    async def _read_claimed(
        self, wanted: Wanted, overview: Overview
    ) -> tuple[dict[str, ListedTask], list[ListedTask]]:
        """Count the failed tasks. Return the open ones by key hash, and the last failed ones."""
        claimed: dict[str, ListedTask] = {}
        failed: list[tuple[datetime, int, ListedTask]] = []
        limit, read = wanted.limit if wanted.lists(TaskState.FAILURE) else 0, 0
        records = self._tasks.recorded(wanted.source, since=overview.since)
        async with aclosing(records):
            async for listed in records:
                read += 1
                if not read % PROGRESS_INTERVAL:
                    self._on_progress(read)
                task = listed.task
                if not wanted.includes(listed):
                    continue
                if not task.state.terminal:
                    claimed[task.archive.key_hash] = listed
                elif task.state is TaskState.FAILURE:
                    claimed.pop(task.archive.key_hash, None)
                    overview.count(listed)
                    heapq.heappush(failed, (task.updated_at or NEVER, read, listed))
                    if len(failed) > limit:
                        heapq.heappop(failed)
        return claimed, [listed for _, _, listed in sorted(failed, reverse=True)]

    async def _count_queued(
        self,
        wanted: Wanted,
        overview: Overview,
        claimed: dict[str, ListedTask],
    ) -> tuple[list[ListedTask], Counter[str]]:
        """Count the open tasks. Return the claimed ones, and how many each client has.

        A record of a task that is not in the queue was left by a wipe of the engine.
        """
        running: list[ListedTask] = []
        holders: Counter[str] = Counter()
        async with aclosing(self._tasks.queued(wanted.source)) as queued:
            async for each in queued:
                holders[each.holder] += 1
                if listed := claimed.get(each.key_hash):
                    overview.count(listed)
                    running.append(listed)
                else:
                    overview.counts[TaskState.PENDING, each.source] += 1
        return running, holders

    async def _read_waiting(
        self, wanted: Wanted, claimed: dict[str, ListedTask]
    ) -> list[ListedTask]:
        """Return the wanted tasks that no worker has claimed, each once."""
        waiting: dict[str, ListedTask] = {}
        if not wanted.lists(TaskState.PENDING):
            return []
        async with aclosing(self._tasks.oldest(wanted.source)) as oldest:
            async for listed in oldest:
                key_hash = listed.task.archive.key_hash
                if key_hash not in claimed and wanted.includes(listed):
                    waiting.setdefault(key_hash, listed)
                    if len(waiting) == wanted.limit:
                        break
        return [*waiting.values()]


def _in_order(wanted: Wanted, running: Iterable[ListedTask]) -> list[ListedTask]:
    """Return the wanted ones of *running* tasks, those that are between attempts last."""
    oldest_first = sorted(running, key=lambda listed: listed.task.created_at or NEVER)
    return [
        listed
        for state in (TaskState.STARTED, TaskState.RETRY)
        if wanted.lists(state)
        for listed in [each for each in oldest_first if each.task.state is state][: wanted.limit]
    ]
