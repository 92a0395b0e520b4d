"""The tasks of the fleet, as operators list and count them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A task in the queue: waiting, running or backing off. ``holder`` identifies its client."""

    source: str
    holder: str
    key_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """A task, and the name of the client that caused it, for operators only.

    ``client`` is empty for Archiver's own tasks, and if it is unknown.
    """

    task: Task
    client: str


class TaskList(Protocol):
    """Reads all tasks, and holds none. *source* limits a method to one source.

    Every method raises EngineUnavailable if its answer is not certain.
    """

    def queued(self, source: str | None = None) -> AsyncGenerator[Queued, None]:
        """Yield every task in the queue, in no certain order. Cheap: no task itself is read."""

    def oldest(self, source: str | None = None) -> AsyncGenerator[ListedTask, None]:
        """Yield the tasks in the queue as PENDING, those first that are unchanged for longest.

        Each costs a request. Some of them may have been claimed, and one whose turn comes meanwhile
        is yielded again. Unreadable ones are left out.
        """

    async def client(self, holder: str) -> str:
        """Return the name of a client by its *holder*; empty if it has no task in the queue."""

    async def window(self, *, at_most: int) -> datetime | None:
        """Return the time since which *at_most* so many tasks changed; None for all times."""

    def recorded(
        self, source: str | None = None, *, since: datetime | None = None
    ) -> AsyncGenerator[ListedTask, None]:
        """Yield the tasks that a worker has claimed, in the order of their last changes.

        With *since*, only those that changed since then. Tasks that ended days ago are left out.
        """
