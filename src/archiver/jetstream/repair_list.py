"""Archives that lack a copy in some region, in a bucket of NATS."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import COPIES
from archiver.jetstream.records import RepairRecord, decode_repair, encode
from archiver.jetstream.streams import REPAIRS
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive, Region, parse_key
from archiver.ports.queue import Repair
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache

NOTED_TTL = timedelta(seconds=60)
"""How long this process remembers that an archive is listed."""

NOTED_MAX_BYTES = 8 * MEGABYTE


class JetStreamRepairList:
    """Implements ``ports.queue.RepairList``."""

    def __init__(self, *, connection: Connection) -> None:
        self.lacking: Mapping[Region, int] = {}
        self._connection = connection
        self._noted: BoundedCache[str, None] = BoundedCache(
            ttl=NOTED_TTL, max_bytes=NOTED_MAX_BYTES
        )
        connection.feed.subscribe(COPIES, lambda key_hash, _payload: self._noted.pop(key_hash))

    async def add(self, archive: Archive, missing: Sequence[Region]) -> None:
        if archive.key_hash in self._noted:
            return
        if await self._connection.kv.get(REPAIRS, archive.key_hash) is None:
            record = RepairRecord(key=archive.key, missing=missing, due_at=datetime.now(UTC))
            await self._connection.kv.put(REPAIRS, archive.key_hash, encode(record))
        self._noted.put(archive.key_hash, None)

    async def forget(self, archive: Archive) -> None:
        self._noted.pop(archive.key_hash)
        if entry := await self._connection.kv.get(REPAIRS, archive.key_hash):
            await self._connection.kv.purge(REPAIRS, archive.key_hash, revision=entry.revision)

    async def due(self) -> AsyncGenerator[Repair, None]:
        lacking = Counter[Region]()
        for key_hash in await self._connection.kv.keys(REPAIRS, ">"):
            if repair := await self._read_due(key_hash, lacking):
                yield repair
        self.lacking = lacking

    async def _read_due(self, key_hash: str, lacking: Counter[Region]) -> Repair | None:
        """Return a repair if it is due. Count what it lacks in any case."""
        entry = await self._connection.kv.get(REPAIRS, key_hash)
        if entry is None:
            return None
        record = decode_repair(entry.value)
        archive = parse_key(record.key) if record else None
        if record is None or archive is None or archive.key_hash != key_hash:
            await self._connection.kv.remove_unreadable(REPAIRS, key_hash, entry)
            return None
        lacking.update(record.missing)
        if record.due_at > datetime.now(UTC):
            return None
        return Repair(
            archive=archive, missing=record.missing, tries=record.tries, revision=entry.revision
        )

    async def postpone(self, repair: Repair, *, until: datetime) -> bool:
        record = RepairRecord(
            key=repair.archive.key, missing=repair.missing, due_at=until, tries=repair.tries + 1
        )
        try:
            await self._connection.kv.update(
                REPAIRS, repair.archive.key_hash, encode(record), revision=repair.revision
            )
        except WrongRevision:
            return False
        return True
