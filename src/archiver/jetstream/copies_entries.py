"""Entries of the index that lead from an archive to its copies: encoded, read and written."""

from collections.abc import Awaitable

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.records import CopiesRecord, decode_copies, encode
from archiver.jetstream.streams import INDEX
from archiver.jetstream.translation import WrongRevision
from archiver.manifest_check import find_invalid_field
from archiver.model import Archive, Copies, Region
from archiver.ports.index_entries import IndexEntry
from archiver.ports.storage import Storage
from archiver.telemetry import log

NO_ENTRY = KvEntry(value=b"", revision=0)


class CopiesEntries:
    """Reads and writes entries as this process sees them: by its own regions and buckets."""

    def __init__(self, *, connection: Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage
        self._moved_regions: set[Region] = set()

    def encode(self, entry: IndexEntry) -> bytes:
        return encode(CopiesRecord.of(entry.copies, entry.checked_at, self._storage.bucket_ids))

    def decode(self, value: bytes) -> IndexEntry | None:
        """Return an entry that ``encode`` returned, by the buckets that are configured now."""
        record = decode_copies(value)
        return self._parse(record, revision=0) if record else None

    async def read(self, archive: Archive) -> tuple[KvEntry | None, IndexEntry | None]:
        """Return the stored value, whose revision an update must name, and its content.

        The value is ``None`` if the engine does not answer.
        """
        try:
            stored = await self._connection.kv.get_or_marker(INDEX, archive.key_hash) or NO_ENTRY
        except EngineUnavailable:
            return None, None
        if not stored.value:
            return stored, None
        record = decode_copies(stored.value)
        if record is None or find_invalid_field(record.manifest, archive):
            await self._connection.kv.remove_unreadable(INDEX, archive.key_hash, stored)
            return NO_ENTRY, None  # also of a later release: no update replaces its revision
        return stored, self._parse(record, revision=stored.revision)

    def _parse(self, record: CopiesRecord, *, revision: int) -> IndexEntry | None:
        moved = record.moved(self._storage.bucket_ids)
        for region in moved - self._moved_regions:
            self._moved_regions.add(region)
            log.warning("region.moved", region=region, key=record.manifest.key)
        regions = tuple(r for r in self._storage.regions if r in record.regions and r not in moved)
        if not regions:
            return None
        return IndexEntry(
            copies=Copies(manifest=record.manifest, regions=regions),
            checked_at=record.checked_at,
            revision=revision,
            moved=bool(moved),
        )

    async def update(self, archive: Archive, entry: IndexEntry) -> bool:
        """Write *entry* over its revision; return False if another one is there by now."""
        key, value = archive.key_hash, self.encode(entry)
        update = self._connection.kv.update(INDEX, key, value, revision=entry.revision)
        try:
            await unless_away(archive, update)
        except WrongRevision:
            return False
        return True

    async def void(self, archive: Archive) -> None:
        """Leave a marker, so that no lookup that began before can write what it found.

        Raises EngineUnavailable.
        """
        await self._connection.kv.put(INDEX, archive.key_hash, b"")

    async def remove(self, archive: Archive, entry: IndexEntry) -> None:
        """Remove *entry*, unless another one is there by now."""
        purge = self._connection.kv.purge(INDEX, archive.key_hash, revision=entry.revision)
        await unless_away(archive, purge)


async def unless_away(archive: Archive, write: Awaitable[object]) -> None:
    """Await *write*, and only log if the engine is away: the index is a cache."""
    try:
        await write
    except EngineUnavailable as exc:
        log.warning("index.not_written", key=archive.key, code=exc.code)
