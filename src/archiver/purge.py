"""Removes every trace of an archive: from the buckets, the index, the queue and all memories."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from archiver.errors import ArchiverError, PinnedArchive, PurgeUnfinished
from archiver.model import Archive, Region
from archiver.ports.index import Index
from archiver.ports.queue import RepairList, TaskQueue
from archiver.ports.storage import Storage, Traces
from archiver.telemetry import log

REASON_MAX_CHARS = 500

REASON_ALLOWED = f"1 to {REASON_MAX_CHARS} printable characters"


def is_reason(text: str) -> bool:
    return 0 < len(text.strip()) <= len(text) <= REASON_MAX_CHARS and text.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeOrder:
    """Names the client, or ``cli``, and its reason. ``pinned`` allows to purge pinned archives."""

    principal: str
    reason: str
    pinned: bool = False


class Forgetter:
    """Removes all that the engine and the processes know of an archive."""

    def __init__(self, *, index: Index, queue: TaskQueue, repairs: RepairList) -> None:
        self._index = index
        self._queue = queue
        self._repairs = repairs

    async def forget(self, archive: Archive, sha256s: Collection[str] = ()) -> bool:
        """Return whether the index led to the archive.

        Empties the index first: then no hit can list a repair again. Raises EngineUnavailable.
        """
        was_indexed = await self._index.remove(archive, sha256s)
        await self._repairs.forget(archive)
        await self._queue.drop(archive)
        return was_indexed


class Purger:
    """Purges archives, one at a time. May be repeated, and may run several times at once."""

    def __init__(
        self, *, storage: Storage, index: Index, queue: TaskQueue, repairs: RepairList
    ) -> None:
        self._storage = storage
        self._forget = Forgetter(index=index, queue=queue, repairs=repairs).forget
        self.traces = storage.traces
        self.list_of = storage.list_of
        self.by_sha256 = index.by_sha256

    async def purge(self, archive: Archive, order: PurgeOrder) -> Traces | None:
        """Return the traces that were removed; None if the buckets had none.

        The marks in the buckets are removed last, after everything else succeeded. As long as one
        is left, the archive is neither served, nor built, nor copied from a region that still has
        it, and a repeated purge finds it.

        Raises:
            PinnedArchive: The archive is pinned, and the order does not allow that.
            StorageUnavailable: No region answered whether it is pinned.
            PurgeUnfinished: Some regions did not answer. The others have only the mark.
            EngineUnavailable: The buckets have only the mark, and the engine did not answer.
        """
        traces = await self._storage.traces(archive)
        if not traces.regions and not traces.failures:
            await self._forget(archive)
            return None
        if not order.pinned and await self._storage.read_pin(archive):
            raise PinnedArchive("the archive is pinned: unpin it first")
        purge = secrets.token_hex(8)
        failures = await self._storage.begin_purge(archive, purge=purge)
        await self._forget(archive, traces.sha256s)
        if order.pinned:
            failures = failures or await self._storage.remove_pin(archive)
        failures = failures or await self._storage.end_purge(archive, purge=purge)
        if failures:
            self._log_unfinished(archive, traces, order, failures)
            raise PurgeUnfinished(f"purge it again, because these failed: {', '.join(failures)}")
        log.warning(
            "archive.purged",
            key=archive.key,
            sha256=", ".join(traces.sha256s) or None,
            size_bytes=traces.total_bytes,
            regions=list(traces.regions),
            principal=order.principal,
            reason=order.reason,
        )
        return traces

    def _log_unfinished(
        self,
        archive: Archive,
        traces: Traces,
        order: PurgeOrder,
        failures: Mapping[Region, ArchiverError],
    ) -> None:
        """Name the bytes here too: a second purge no longer finds a manifest that does."""
        for region, failure in failures.items():
            log.warning(
                "archive.purge_unfinished",
                key=archive.key,
                sha256=", ".join(traces.sha256s) or None,
                size_bytes=traces.total_bytes,
                region=region,
                principal=order.principal,
                reason=order.reason,
                **failure.log_fields,
            )
