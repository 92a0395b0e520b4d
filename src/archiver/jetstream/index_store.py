"""All entries of the shared index, for a rebuild of it. Unreadable ones and markers are removed."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.feed import COPIES
from archiver.jetstream.newer_records import is_of_later_release
from archiver.jetstream.records import CopiesRecord, decode_copies, encode
from archiver.jetstream.sha256_index import parse_sha256_entry, sha256_key
from archiver.jetstream.streams import DIGESTS, INDEX
from archiver.jetstream.translation import WrongRevision
from archiver.manifest_check import find_invalid_field
from archiver.model import Archive, Copies, parse_key
from archiver.ports.index_entries import StoredEntry
from archiver.ports.storage import Storage


class JetStreamIndexStore:
    """Implements ``ports.index_entries.IndexStore``. The keys of DIGESTS have two tokens."""

    def __init__(self, *, connection: Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage
        self.prepare = connection.streams.ensure
        self.sha256_key = sha256_key

    async def scan(self) -> AsyncGenerator[StoredEntry, None]:
        for bucket in (INDEX, DIGESTS):
            async with aclosing(self._connection.kv.entries(bucket)) as entries:
                async for key, entry in entries:
                    if stored := await self._checked(bucket, key, entry):
                        yield stored

    async def _checked(self, bucket: str, key: str, entry: KvEntry) -> StoredEntry | None:
        if stored := _decode(bucket, key, entry) if entry.value else None:
            return stored
        if is_of_later_release(bucket, key, entry.value):
            self._connection.unreadable.note(bucket, key, entry.revision, newer=True)
            return None
        await self._connection.kv.purge(bucket, key, revision=entry.revision)
        if not entry.value:
            return None
        self._connection.unreadable.note(bucket, key, entry.revision)
        return StoredEntry(key=key, revision=entry.revision)

    async def read(self, key: str) -> StoredEntry | None:
        bucket = _bucket_of(key)
        entry = await self._connection.kv.get(bucket, key)
        return _decode(bucket, key, entry) if entry else None

    async def remove(self, entry: StoredEntry) -> None:
        bucket = _bucket_of(entry.key)
        await self._connection.kv.purge(bucket, entry.key, revision=entry.revision)

    def fingerprint(self, copies: Copies) -> int:
        return _fingerprint(self._record(copies))

    async def write(self, archive: Archive, copies: Copies, *, revision: int) -> bool:
        return await self._write(archive.key_hash, encode(self._record(copies)), revision)

    async def write_sha256(self, sha256: str, archive: Archive) -> bool:
        return await self._write(sha256_key(sha256, archive), archive.key.encode(), 0)

    async def _write(self, key: str, value: bytes, revision: int) -> bool:
        try:
            await self._connection.kv.update(_bucket_of(key), key, value, revision=revision)
        except WrongRevision:
            return False
        return True

    async def publish_change(self, key_hash: str, sha256: str) -> None:
        await self._connection.feed.publish(COPIES, key_hash, sha256.encode())

    def _record(self, copies: Copies) -> CopiesRecord:
        return CopiesRecord.of(copies, datetime.now(UTC), self._storage.bucket_ids)


def _bucket_of(key: str) -> str:
    return DIGESTS if "." in key else INDEX


def _decode(bucket: str, key: str, entry: KvEntry) -> StoredEntry | None:
    if bucket == DIGESTS:
        named = parse_sha256_entry(key, entry)
        return StoredEntry(key=key, revision=entry.revision, archive=named) if named else None
    record = decode_copies(entry.value)
    archive = parse_key(record.manifest.key) if record else None
    if record is None or archive is None or archive.key_hash != key:
        return None
    if find_invalid_field(record.manifest, archive):
        return None
    return StoredEntry(
        key=key,
        revision=entry.revision,
        archive=archive,
        sha256=record.manifest.sha256,
        fingerprint=_fingerprint(record),
    )


def _fingerprint(record: CopiesRecord) -> int:
    """Return a hash of the record without its time. A million records would not fit in memory."""
    return hash((record.manifest, record.regions, frozenset(record.places.items())))
