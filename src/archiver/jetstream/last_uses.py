"""The last use of each archive, in a bucket of NATS."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, date, datetime

from archiver.jetstream.connection import Connection
from archiver.jetstream.streams import USES
from archiver.jetstream.translation import WrongRevision
from archiver.record_versions import is_newer

CONCURRENCY = 32

SINCE = "since"
"""The key of the day on which the bucket was created. The other keys are key hashes."""


class JetStreamLastUses:
    """Implements ``ports.last_uses.LastUses``. A value is a day, as ``2026-11-27``."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection

    async def record(self, key_hashes: Collection[str], day: date) -> None:
        if await self.since() is None:
            with suppress(WrongRevision):  # another process wrote it
                await self._connection.kv.update(USES, SINCE, _encode(day), revision=0)
        remaining = iter(key_hashes)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(self._record_each(remaining, day))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _record_each(self, key_hashes: Iterator[str], day: date) -> None:
        for key_hash in key_hashes:
            await self._connection.kv.put(USES, key_hash, _encode(day))

    async def since(self) -> date | None:
        return await self.day(SINCE)

    async def day(self, key_hash: str) -> date | None:
        entry = await self._connection.kv.get(USES, key_hash)
        if entry is None:
            return None
        day = _decode(entry.value)
        if day is None:
            await self._connection.kv.remove_unreadable(USES, key_hash, entry)
        return day

    async def scan(self) -> AsyncGenerator[tuple[str, date], None]:
        async with aclosing(self._connection.kv.entries(USES)) as entries:
            async for key, entry in entries:
                if key == SINCE or not entry.value:
                    continue
                if day := _decode(entry.value):
                    yield key, day
                else:
                    await self._connection.kv.remove_unreadable(USES, key, entry)


def _encode(day: date) -> bytes:
    return day.isoformat().encode()


def _decode(value: bytes) -> date | None:
    """Return the day; today for a value of a later release, so that its archive does not expire."""
    if is_newer("use", value):
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(value.decode("ascii"))
    except ValueError:
        return None
