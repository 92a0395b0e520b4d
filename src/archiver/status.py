"""How far a task is, and where its archive can be downloaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from archiver.errors import EngineUnavailable, PartOrigin, StorageUnavailable, SubmoduleRefused
from archiver.model import Archive, Copies, PresignedUrl, Region
from archiver.ports.index import Index
from archiver.ports.queue import TaskQueue
from archiver.ports.source import Source
from archiver.ports.storage import Storage
from archiver.runtime.hedging import hedged
from archiver.tasks import Failure, Phase, Task, TaskState
from archiver.tree_proof import MayRead

ENGINE_PATIENCE = timedelta(milliseconds=200)
"""How long the status of a stored archive waits for details that only the engine knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The task of an archive, its copies, and a fresh presigned URL for each of them."""

    task: Task
    source_url: str
    copies: Copies | None = None
    urls: Mapping[Region, PresignedUrl] = field(default_factory=dict, repr=False)
    missing: tuple[Region, ...] = ()
    pinned: bool = False

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self.task.state.terminal

    def first_hidden(self, may_read: MayRead) -> PartOrigin | None:
        """Return the first part of the archive, or of its error, that a client may not read."""
        if self.copies:
            return self.copies.manifest.first_hidden(may_read)
        return self.task.error.first_hidden(may_read) if self.task.error else None

    def as_seen_by(self, may_read: MayRead) -> "Status":
        """Return the status as a client may know it.

        If a part is hidden from the client, the status is that of a task that failed because no
        source serves the part's URL. It then says nothing of the real result, and not how long the
        build took.
        """
        hidden = self.first_hidden(may_read)
        error = Failure.refusal(hidden) if hidden else self.task.error
        is_refused = error is not None and error.code == SubmoduleRefused.code
        if hidden is None and not (is_refused and self.ended):
            return self
        return Status(task=self._refused(error), source_url=self.source_url)

    def _refused(self, error: Failure | None) -> Task:
        """Return a task that failed with this *error*, and that says nothing else of the build."""
        built_at = self.copies.manifest.created_at if self.copies else self.task.updated_at
        started_at = self.task.started_at or built_at
        return Task(
            archive=self.task.archive,
            state=TaskState.FAILURE,
            phase=Phase.DONE,
            attempt=1,
            failures=1,
            error=error,
            created_at=self.task.created_at or built_at,
            started_at=started_at,
            updated_at=started_at,
        )


class StatusReporter:
    """Combines the engine's record of a task with the copies in the buckets."""

    def __init__(
        self,
        *,
        storage: Storage,
        index: Index,
        queue: TaskQueue,
        source: Callable[[str], Source],
        is_pinned: Callable[[Archive], bool],
    ) -> None:
        self._storage = storage
        self._index = index
        self._queue = queue
        self._source = source
        self._is_pinned = is_pinned

    async def status(self, archive: Archive, *, may_read: MayRead) -> Status:
        """Return the status of *archive*: SUCCESS if and only if a region has it.

        *may_read* is about the client that will see it: see ``Status.as_seen_by``.

        Raises:
            EngineUnavailable: No region has it, and the engine does not respond.
            StorageUnavailable: Its task succeeded, and no region responds.
        """
        status = await hedged(
            self._status(archive), lambda: self._status_if_stored(archive), after=ENGINE_PATIENCE
        )
        return self._presigned(status.as_seen_by(may_read))

    def _presigned(self, status: Status) -> Status:
        if status.copies is None:
            return status
        presign, copies = self._storage.presign, status.copies
        return replace(
            status,
            urls={region: presign(copies, region, method="GET") for region in copies.regions},
        )

    async def _status(self, archive: Archive) -> Status:
        try:
            # The task first: in the other order, a commit in between would look undone.
            task = await self._queue.task(archive)
        except EngineUnavailable:
            if stored := await self._status_if_stored(archive):
                return stored
            raise
        succeeded = task is not None and task.state is TaskState.SUCCESS
        try:
            since = task.updated_at if task and succeeded else None
            copies = await self._index.copies(archive, since=since)
        except StorageUnavailable:
            ended = task is not None and task.state.terminal
            if succeeded or (ended and archive.submodules):  # it may have parts that are hidden
                raise
            copies = None
        if copies:
            return self._stored(archive, copies, task)
        if task is None or succeeded:  # a lost archive is PENDING, as in the original service
            task = Task(archive=archive, state=TaskState.PENDING, phase=Phase.QUEUED)
        return Status(task=task, source_url=self._source_url(archive))

    async def _status_if_stored(self, archive: Archive) -> Status | None:
        copies = await self._index.copies(archive)
        return self._stored(archive, copies, None) if copies else None

    def _stored(self, archive: Archive, copies: Copies, task: Task | None) -> Status:
        return Status(
            task=_succeeded(archive, copies, task),
            source_url=self._source_url(archive),
            copies=copies,
            missing=copies.missing_from(self._storage.regions),
            pinned=self._is_pinned(archive),
        )

    def _source_url(self, archive: Archive) -> str:
        source = self._source(archive.source)
        return source.url(source.served.fetchable(archive))


def _succeeded(archive: Archive, copies: Copies, task: Task | None) -> Task:
    """Return the task as a SUCCESS, which the copies prove, whatever the engine has recorded."""
    known = task or Task(archive=archive, state=TaskState.SUCCESS, phase=Phase.DONE)
    return replace(
        known,
        state=TaskState.SUCCESS,
        phase=Phase.DONE,
        bytes_done=copies.manifest.size_bytes,
        error=None,
        updated_at=known.updated_at or copies.manifest.created_at,
    )
