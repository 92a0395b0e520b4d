"""The fleet's queue, as its clients, its workers and its operators need it.

There is at most one task per archive. A task is PENDING until a worker claims it, STARTED while an
attempt runs, RETRY between attempts, and ends in SUCCESS or FAILURE.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from archiver.errors import ArchiverError
from archiver.model import Archive, EnqueueOutcome, Region, TaskId
from archiver.runtime.notifications import Subscribers
from archiver.tasks import Backlog, Failure, Phase, Priority, Task, Urgency


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the queue holds when a client is about to get another task.

    ``open_tasks`` counts the client's tasks that have not ended, ``waiting`` the tasks of all
    clients that wait for the source. The second number is at most about a second old.
    """

    open_tasks: int
    waiting: int


Admit: TypeAlias = Callable[[Standing], Awaitable[None]]
"""Returns if the task may be created, and raises an error if not."""


class TaskQueue(Protocol):
    """Creates tasks and reports on them."""

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
        """Create the archive's task, or join its waiting or running task.

        A task that *client* causes counts as its open task, and has high priority only if the
        client is light, or if nothing waits for it. Clients that are not light take turns. *admit*
        is called before such a task is created, and not before one is joined.

        If a light client joins a task that waits for the turn of another one, the task is built as
        soon as a new task of this client. A client causes that at most as often in a minute as it
        could have created such tasks. The task stays an open task of the client that created it.

        A task without *urgency* is deferred: it waits while other tasks wait for its source, or
        use half of what may run there. If a client causes it with urgency, it becomes an open task
        of that client, in the place of a new one.

        A task that does not need its host, because a stored archive will do, has low priority, and
        does not wait for the end of a pause of the source.

        Raises:
            EngineUnavailable: No task is known to have been created.
            ArchiverError: *admit* raised it.
        """

    async def task(self, archive: Archive) -> Task | None:
        """Return the archive's task, or None if none was created in the last days.

        Raises:
            EngineUnavailable: The task cannot be read.
        """

    async def drop(self, archive: Archive) -> None:
        """Remove the archive's repair from the queue, and the state of a task that has ended.

        A task for which a client may wait stays.

        Raises:
            EngineUnavailable: They are not known to be removed.
        """

    async def backlog(self, archive: Archive) -> Backlog | None:
        """Return how many tasks may come before the archive's, at most a second old.

        None if it is unknown. Tasks of clients with few do not count those of clients with many.
        """

    def recent_failure(self, archive: Archive) -> Failure | None:
        """Return why the archive's task failed for good, for some seconds after it did."""


class TaskEvents(Protocol):
    """Events of the fleet's tasks, as this process receives them.

    ``accepted``: a task was created or joined here for this client, with this urgency.
    ``ended``: the archive with this key hash was stored, or its task failed for good.
    ``gaps``: events may have been missed.
    """

    accepted: Subscribers[[Archive, str, Urgency]]
    ended: Subscribers[[str]]
    gaps: Subscribers[[]]


class Attempt(Protocol):
    """One run of a task, as the code that builds the archive sees it. ``id`` is unique."""

    id: str

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        """Set the progress of the attempt. Cheap: the queue decides when it is written.

        If the last phase of a successful attempt is COMMITTING, the archive was built, not found.
        """

    async def prove_lease(self) -> None:
        """Prove that the lease is still held, before a commit.

        Raises:
            LeaseLost: Another worker has the task.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageHistory:
    """Outages of our own parts that interrupted a task.

    ``since`` is the beginning of the present one, or None. ``spoiled`` counts attempts that were
    interrupted after they had begun to fetch.
    """

    since: datetime | None = None
    spoiled: int = 0


class Lease(Attempt, Protocol):
    """A worker's exclusive right to a task, until the attempt ends or the lease runs out.

    ``attempt`` counts runs of the task from 1, ``failures`` runs that ended in an error, and
    ``vanished`` the workers whose lease ran out. ``phase`` is the last reported phase. An
    ``announced`` archive is of a changeset that the host has pushed to Archiver. A task of low
    ``priority`` needs no host. ``traceparent`` names the span that created the task; it is empty if
    there was none. ``is_open`` is true until the end of the attempt is recorded.

    After the lease has run out, another worker may claim the task. From then on every method but
    ``report`` raises LeaseLost.
    """

    archive: Archive
    announced: bool
    priority: Priority
    traceparent: str
    attempt: int
    failures: int
    vanished: int
    outages: OutageHistory
    phase: Phase
    is_open: bool

    async def keep_renewed(self) -> None:
        """Renew the lease and write progress until cancelled.

        Raises:
            LeaseLost: Another worker has the task.
        """

    async def succeed(self) -> None:
        """End the task in SUCCESS."""

    async def fail(self, error: ArchiverError) -> None:
        """End the task in FAILURE, and publish the reason if no retry can help.

        An error in a submodule is always published: a client that may not read the submodule must
        not notice whether a retry could help.
        """

    async def retry(self, error: ArchiverError, *, after: timedelta) -> None:
        """Count a failure, and offer the task again *after* a delay. Ends an outage."""

    async def postpone(
        self, error: ArchiverError, *, outages: OutageHistory, after: timedelta
    ) -> None:
        """Offer the task again *after* a delay without counting a failure."""

    async def hand_back(self) -> None:
        """Offer the task to other workers at once. The attempt counts as no failure."""


class WorkQueue(Protocol):
    """Hands tasks to one worker, never more per source than the fleet's cap."""

    async def claim(self) -> Lease | None:
        """Wait for a task, record it as STARTED, and return its lease; None after ``close``.

        A worker has as many claims waiting as it has free slots. Tasks of high priority come
        first, but some of low priority come in between.
        """

    def close(self) -> None:
        """End the waiting claims, and leave further tasks to other workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """An archive that lacks copies in the *missing* regions; ``tries`` counts its repair tasks.

    ``revision`` identifies this version of the entry.
    """

    archive: Archive
    missing: Sequence[Region]
    tries: int
    revision: int


class RepairList(Protocol):
    """Archives that lack a copy in some region.

    ``lacking`` counts the copies that each region lacked when ``due`` last came to its end.

    Every method raises EngineUnavailable if its effect or its answer is not certain.
    """

    lacking: Mapping[Region, int]

    async def add(self, archive: Archive, missing: Sequence[Region]) -> None:
        """Add *archive*, unless it is listed. Cheap to repeat."""

    async def forget(self, archive: Archive) -> None:
        """Remove *archive*, if it is listed."""

    def due(self) -> AsyncGenerator[Repair, None]:
        """Yield the repairs that are due. Unreadable entries are removed."""

    async def postpone(self, repair: Repair, *, until: datetime) -> bool:
        """Count a try of *repair*, due again *until* then; False if the entry has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """A worker's report about itself.

    ``regions`` maps each region to None if it took the worker's last write. Otherwise the value is
    the reason: a message, and S3's code. ``draining`` is None if that is unknown, as of a worker
    whose release cannot drain. ``running`` are the tasks that have an attempt there. ``version`` is
    that of Archiver; None if that is unknown.
    """

    name: str
    regions: Mapping[Region, str | None]
    draining: bool | None = None
    running: tuple[TaskId, ...] = ()
    version: str | None = None


class Fleet(Protocol):
    """The processes that run now, and the health of the queue between them."""

    async def workers(self) -> Sequence[WorkerReport]:
        """Return the report of each worker that answers within some seconds.

        Raises:
            EngineUnavailable: The workers cannot be asked.
        """

    async def drain(self, name: str) -> WorkerReport | None:
        """Have the worker with this name drain; return its report without regions.

        None if no process listens under this name. ``draining`` is None if it does not answer.

        Raises:
            EngineUnavailable: It cannot be asked.
        """

    async def look_up(self, name: str) -> WorkerReport | None:
        """Return the same as ``drain``, and change nothing."""

    async def check_queue(self) -> ArchiverError | None:
        """Return None if a task can be queued and claimed now, else the reason why not."""
