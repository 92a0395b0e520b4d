"""Has the fleet's workers copy an archive to a region, and waits for the result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from archiver.errors import (
    EngineUnavailable,
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.model import Archive, Copies, Region
from archiver.ports.index import Index
from archiver.ports.queue import TaskQueue
from archiver.ports.storage import Storage, StoredState
from archiver.runtime.notifications import Notifications
from archiver.tasks import Failure, Priority
from archiver.upkeep.filled import COPIED, UNCOPIED

A = TypeVar("A")

TRIES_MAX = 3
"""Tasks for one archive. A task ends in SUCCESS although its copy failed, as in an outage."""

PATIENCE = timedelta(minutes=1)
"""How long an outage of the region or of the engine may last before it is an error."""

PAUSE_S = 1.0
POLL = timedelta(seconds=5)
"""How long the end of a task may go unnoticed if its notification is lost."""


class Copying:
    """Creates tasks of low priority, which workers take after those of clients.

    Every method raises StorageUnavailable or EngineUnavailable if the region or the engine does not
    respond within *patience*.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        index: Index,
        queue: TaskQueue,
        notifications: Notifications,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._storage = storage
        self._index = index
        self._queue = queue
        self._notifications = notifications
        self._patience = patience

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> str:
        """Have a worker copy *archive* to *region*, and return the outcome."""
        # Without this entry, a worker that finds the regions of these copies down asks the host.
        await self._index.record(archive, copies)
        for _ in range(TRIES_MAX):
            await self._outlast(partial(self._require_writable, region))
            await self._outlast(partial(self._queue.enqueue, archive, priority=Priority.LOW))
            failure = await self._end_of_task(archive)
            try:
                found = await self.find(archive, region)
            except (PurgeUnfinished, UnreadableManifest) as exc:
                return exc.code
            if found.copies and region in found.copies.regions:
                return COPIED
            if failure:
                return failure.code
        return UNCOPIED

    async def _end_of_task(self, archive: Archive) -> Failure | None:
        """Return why the task of *archive* failed, once it has ended or is lost."""
        with self._notifications.listen(archive.key_hash) as listener:
            while True:
                task = await self._outlast(partial(self._queue.task, archive))
                if task is None:
                    return None
                if task.state.terminal:
                    return task.error
                await listener.wait(POLL)

    async def find(self, archive: Archive, region: Region) -> StoredState:
        """Look up *archive* once *region* answers."""

        async def find() -> StoredState:
            found = await self._storage.find(archive)
            if region in found.unreachable:
                raise StorageUnavailable(f"{region} does not answer")
            return found

        return await self._outlast(find)

    async def _require_writable(self, region: Region) -> None:
        if failure := (await self._storage.check_writable())[region]:
            raise failure

    async def _outlast(self, ask: Callable[[], Awaitable[A]]) -> A:
        """Return the answer of *ask*, which is repeated during an outage of ours."""
        until = time.monotonic() + self._patience.total_seconds()
        while True:
            try:
                return await ask()
            except (StorageUnavailable, EngineUnavailable) as exc:
                if not exc.ours or time.monotonic() >= until:
                    raise
            await asyncio.sleep(PAUSE_S)
