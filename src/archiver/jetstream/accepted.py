"""What this process accepted is done, even if the engine loses its queue."""

import asyncio
from datetime import UTC, datetime, timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import COPIES, FAILED
from archiver.jetstream.jetstream import JetStream
from archiver.model import Archive, EnqueueOutcome
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import Task
from archiver.telemetry import log

ACCEPTED_MAX_BYTES = 16 * MEGABYTE
"""Some 10,000 archives. The oldest are forgotten; nobody lets so many wait."""


class Accepted:
    """Remembers each task that was created or joined here until it is heard to have ended.

    When the engine comes back from an absence, in which its data may have been lost, those that it
    does not know any longer are created anew. What a worker is still busy with is left to it.
    """

    def __init__(self, *, connection: Connection, engine: JetStream, lease: timedelta) -> None:
        self._engine = engine
        self._lease = lease
        self._archives: BoundedCache[str, Archive] = BoundedCache(max_bytes=ACCEPTED_MAX_BYTES)
        self._returned = asyncio.Event()
        engine.on_accepted(self._remember)
        connection.watch(COPIES, self._forget)
        connection.watch(FAILED, self._forget)
        connection.on_gap(self._returned.set)

    def _remember(self, archive: Archive) -> None:
        if archive.key_hash not in self._archives:
            self._archives.put(archive.key_hash, archive)

    def _forget(self, digest: str, _payload: bytes) -> None:
        self._archives.pop(digest)

    async def keep(self) -> None:
        """See to what was accepted whenever the engine comes back, until cancelled.

        A cluster that accepts connections may not have a leader yet, so a failure is tried again.
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
        unsure = list(self._archives.values())
        while unsure:
            # By then a worker that is alive has written how far it is, whatever was lost.
            await asyncio.sleep(self._lease.total_seconds() / 2)
            unsure = [archive for archive in unsure if not await self._is_settled(archive)]

    async def _is_settled(self, archive: Archive) -> bool:
        """Do what ``_settle`` does; give up an archive for which it fails in any other way."""
        try:
            return await self._settle(archive)
        except EngineUnavailable:
            raise
        except Exception:  # noqa: BLE001 - it must not keep all others from being restored
            log.exception("accepted.broken", key=archive.key)
            return True

    async def _settle(self, archive: Archive) -> bool:
        """Create the task of *archive* if there is none; tell if nothing more is to be done."""
        if archive.key_hash not in self._archives:
            return True
        task = await self._engine.task(archive)
        if task and task.state.terminal:
            self._forget(archive.key_hash, b"")
            return True
        if task and self._is_run(task):
            return False  # its message may be lost all the same
        if await self._engine.enqueue(archive) is EnqueueOutcome.CREATED:
            log.warning("task.restored", key=archive.key)
        return True

    def _is_run(self, task: Task) -> bool:
        return task.updated_at is not None and datetime.now(UTC) - task.updated_at < self._lease
