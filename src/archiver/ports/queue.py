"""The queue of the fleet: one task per archive at a time, its state, and a lease on it."""

from collections.abc import Sequence
from typing import Protocol

from archiver.errors import ArchiverError
from archiver.health import WorkerReport
from archiver.model import (
    Archive,
    EnqueueOutcome,
    Region,
)
from archiver.tasks import Backlog, Failure, Phase, Priority, Task


class Engine(Protocol):
    """The fleet's queue: one task per archive at a time, and its state."""

    async def enqueue(
        self, archive: Archive, *, priority: Priority = Priority.HIGH
    ) -> EnqueueOutcome:
        """Create the archive's task, or join the one that is waiting or running.

        Raises:
            EngineUnavailable: Nothing was created, as far as can be told.
        """

    async def task(self, archive: Archive) -> Task | None:
        """Return the archive's task, or None when there was none lately.

        Raises:
            EngineUnavailable: It cannot be told.
        """

    async def backlog(self, source: str) -> Backlog | None:
        """Return how long the queue of *source* is, as of a second ago; None if it cannot be told.

        Cheap to repeat. What has low priority is left out: nobody waits for it.
        """

    def recent_failure(self, archive: Archive) -> Failure | None:
        """Return why the archive's task failed for good, for some seconds after it did."""

    async def repair_later(self, archive: Archive, missing: Sequence[Region]) -> None:
        """See to it that a task of low priority is created while *missing* regions answer.

        Cheap to repeat. Ends with ``repaired``.

        Raises:
            EngineUnavailable: It will not be.
        """

    async def repaired(self, archive: Archive) -> None:
        """Forget what ``repair_later`` was told, if anything.

        Raises:
            EngineUnavailable: It is not forgotten.
        """

    async def workers(self) -> Sequence[WorkerReport]:
        """Return the report of each worker that answers within a second or so.

        Raises:
            EngineUnavailable: The workers cannot be asked.
        """

    async def check(self) -> ArchiverError | None:
        """Return None if a task can be queued, claimed and followed, else the reason."""


class Attempt(Protocol):
    """A worker's hold on a task, for as long as it keeps its lease. ``id`` is its own for ever."""

    id: str

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        """Say how far it is. Cheap; what is written of it, and when, is the engine's business.

        An attempt that succeeds when it was last COMMITTING has made its archive, not found it.
        """

    async def hold(self) -> None:
        """Return if the lease is still held, so that a commit may follow.

        Raises:
            LeaseLost: Another worker has the task.
        """
