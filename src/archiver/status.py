"""How far a task is, and where its archive can be downloaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.model import Archive, Copies, PresignedUrl, Region
from archiver.ports.index import Index
from archiver.ports.queue import TaskQueue
from archiver.ports.source import Source
from archiver.ports.storage import Storage
from archiver.runtime.hedging import hedged
from archiver.tasks import Phase, Task, TaskState

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

    async def status(self, archive: Archive) -> Status:
        """Return the status of *archive*: SUCCESS if and only if a region has it.

        Raises:
            EngineUnavailable: No region has it, and the engine does not respond.
            StorageUnavailable: Its task succeeded, and no region responds.
        """
        return await hedged(
            self._status(archive), lambda: self._status_if_stored(archive), after=ENGINE_PATIENCE
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
            if succeeded:
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
            urls={
                region: self._storage.presign(copies, region, method="GET")
                for region in copies.regions
            },
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
