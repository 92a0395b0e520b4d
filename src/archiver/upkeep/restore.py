"""Creates tasks again that this process accepted and the queue has lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from archiver.errors import EngineUnavailable
from archiver.model import Archive, EnqueueOutcome
from archiver.ports.queue import TaskEvents, TaskQueue
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import Urgency
from archiver.telemetry import log

ACCEPTED_MAX_BYTES = 16 * MEGABYTE
"""About 10,000 archives, more than clients ever wait for. The oldest are forgotten."""

Accepted: TypeAlias = tuple[Archive, str, Urgency]
"""An archive, the client that caused its task first, and how urgently."""


class Restorer:
    """Remembers each task that was created or joined here, until it has ended.

    After an outage of the engine, which may have lost its data, missing tasks are created again.
    Tasks that a worker is still running are left to it.
    """

    def __init__(self, *, queue: TaskQueue, events: TaskEvents, lease: timedelta) -> None:
        self._queue = queue
        self._lease = lease
        self._archives: BoundedCache[str, Accepted] = BoundedCache(max_bytes=ACCEPTED_MAX_BYTES)
        self._returned = asyncio.Event()
        events.accepted.add(self._remember)
        events.ended.add(self._archives.pop)
        events.gaps.add(self._returned.set)

    def _remember(self, archive: Archive, client: str, urgency: Urgency) -> None:
        known = self._archives.get(archive.key_hash)
        if known is None or known[2] is not Urgency.NOW:
            self._archives.put(archive.key_hash, (archive, client, urgency))

    async def restore_after_outages(self) -> None:
        """Restore the accepted tasks whenever the engine returns, until cancelled.

        A cluster that accepts connections may not have a leader yet, so failures are retried.
        """
        failed = False
        while True:
            await self._returned.wait()
            self._returned.clear()
            try:
                await self._restore()
                failed = False
            except EngineUnavailable as exc:
                if not failed:
                    log.warning("accepted.not_restored", code=exc.code)
                failed = True
                self._returned.set()

    async def _restore(self) -> None:
        unsettled = list(self._archives.values())
        while unsettled:
            # By then every running worker has written its progress again, whatever was lost.
            await asyncio.sleep(self._lease.total_seconds() / 2)
            unsettled = [
                accepted for accepted in unsettled if not await self._try_settle(*accepted)
            ]

    async def _try_settle(self, archive: Archive, client: str, urgency: Urgency) -> bool:
        """Settle *archive*, but give it up after any other error than EngineUnavailable."""
        try:
            return await self._settle(archive, client, urgency)
        except EngineUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one archive must not keep all others from being restored
            log.exception("accepted.broken", key=archive.key)
            return True

    async def _settle(self, archive: Archive, client: str, urgency: Urgency) -> bool:
        """Create the task of *archive* if it is missing; return whether nothing is left to do."""
        if archive.key_hash not in self._archives:
            return True
        task = await self._queue.task(archive)
        if task and task.state.terminal:
            self._archives.pop(archive.key_hash)
            return True
        if task and task.updated_at and datetime.now(UTC) - task.updated_at < self._lease:
            return False  # it is running, but its message may be lost all the same
        outcome = await self._queue.enqueue(archive, client=client, urgency=urgency)
        if outcome is EnqueueOutcome.CREATED:
            log.warning("task.restored", key=archive.key)
        return True
