"""Looks for archives that lack a copy somewhere, and has it made once the region answers."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from archiver.errors import EngineUnavailable
from archiver.jetstream.buckets import REPAIRS
from archiver.jetstream.connection import Connection
from archiver.jetstream.lookups import Entry
from archiver.jetstream.records import AHEAD_MAX, DUE_MAX, RepairRecord, decode_repair, encode
from archiver.jetstream.translation import WrongRevision
from archiver.model import Region, parse_key
from archiver.ports.queue import Engine
from archiver.ports.storage import Storage
from archiver.tasks import Priority
from archiver.telemetry import log

DOUBLINGS_MAX = 7
"""From the usual 30 s to about an hour, for a copy that fails though its region answers."""


class Repairs:
    """Every worker sweeps; that the queue refuses a second task for an archive is enough order."""

    def __init__(
        self, *, connection: Connection, engine: Engine, storage: Storage, interval: timedelta
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._storage = storage
        self._interval = interval

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.sweep()
            except EngineUnavailable as exc:
                log.debug("repairs.not_swept", code=exc.code)
            except Exception:  # noqa: BLE001 - a worker does more than to repair
                log.exception("repairs.broken")

    async def sweep(self) -> None:
        """Create a task for each archive that is due and lacks a copy in a region that answers.

        Raises:
            EngineUnavailable: Not all were seen.
        """
        digests = await self._connection.matching(REPAIRS, ">")
        if not digests:
            return
        health = await self._storage.check_access()
        healthy = {region for region, fault in health.items() if fault is None}
        for digest in digests:
            await self._consider(digest, healthy)

    async def _consider(self, digest: str, healthy: set[Region]) -> None:
        """Create the task of one entry, if it is due. An entry that cannot be used is removed.

        Raises:
            EngineUnavailable: It was not seen.
        """
        entry = await self._connection.get(REPAIRS, digest)
        if entry is None:
            return
        try:
            await self._repair(digest, entry, healthy)
        except EngineUnavailable:
            raise
        except Exception:  # noqa: BLE001 - it must not end the repairs of all others
            log.exception("repair.broken", digest=digest)
            await self._connection.set_aside(REPAIRS, digest, entry)

    async def _repair(self, digest: str, entry: Entry, healthy: set[Region]) -> None:
        record = decode_repair(entry.value)
        archive = parse_key(record.key) if record else None
        if record is None or archive is None or archive.key_hash != digest:
            await self._connection.set_aside(REPAIRS, digest, entry)
            return
        now = datetime.now(UTC)
        if record.due_at <= now and healthy.intersection(record.missing):
            later = encode(self._later(record, now))
            # Written first: the task may be done, and its record gone, before enqueue returns.
            with suppress(WrongRevision):
                await self._connection.update(REPAIRS, digest, later, revision=entry.revision)
                await self._engine.enqueue(archive, priority=Priority.LOW)

    def _later(self, record: RepairRecord, now: datetime) -> RepairRecord:
        wait = min(self._interval * 2 ** min(record.tries, DOUBLINGS_MAX), DUE_MAX - AHEAD_MAX)
        return RepairRecord(
            key=record.key, missing=record.missing, due_at=now + wait, tries=record.tries + 1
        )
