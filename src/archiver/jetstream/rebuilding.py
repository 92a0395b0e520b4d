"""The index and the digests, made anew of what the regions hold."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from archiver.errors import StorageUnavailable
from archiver.jetstream.buckets import DIGESTS, INDEX
from archiver.jetstream.connection import Connection
from archiver.jetstream.digests import digest_key, read_digest
from archiver.jetstream.feed import COPIES
from archiver.jetstream.lookups import Entry
from archiver.jetstream.records import CopiesRecord, decode_copies, encode
from archiver.jetstream.translation import WrongRevision
from archiver.manifest_check import find_invalid_field
from archiver.model import Archive, Region, parse_key
from archiver.ports.storage import Storage, StoredState
from archiver.telemetry import log

AT_A_TIME = 64
"""Archives that are looked for. A region on another continent gives some 500 manifests a second
then, and S3 takes thousands of requests a second."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """How far a rebuild is, in archives.

    ``kept`` are those whose entry was true, or was written by somebody else meanwhile. ``unread``
    are those that not every region answered about, ``silent`` the regions that did not list theirs.
    """

    phase: str = "listing"
    listed: int = 0
    read: int = 0
    written: int = 0
    kept: int = 0
    unread: int = 0
    dropped: int = 0
    silent: list[Region] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.unread and not self.silent


Told = Callable[[Tally], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the index said of an archive, as a hash, and at which revision. None if nothing."""

    revision: int = 0
    said: int | None = None


class Rebuilder:
    """Brings the index in line with the regions once, beside a fleet that goes on working.

    Whatever is written or removed, is so only over the revision that was read before the regions
    were asked: what anybody wrote since then is younger than what is known here, and stays.
    """

    def __init__(self, *, connection: Connection, storage: Storage, told: Told) -> None:
        self._connection = connection
        self._storage = storage
        self._told = told
        self._tally = Tally()
        self._standing: dict[str, Standing] = {}
        self._digests: set[str] = set()
        self._cleared: set[str] = set()
        self._dropped: set[str] = set()

    async def rebuild(self, source: str | None = None) -> Tally:
        """Index every archive, or those of *source*, by what its manifest says.

        Then drop what is indexed of archives that no region has, if all could list theirs.

        Raises:
            EngineUnavailable: The index is only partly rebuilt.
            StorageUnavailable: No region lists its archives.
        """
        await self._connection.ensure_streams()
        await self._read_index(source)
        keys = await self._list(source)
        await self._each("reading", keys, self._index)
        if not self._tally.silent:
            gone = [
                digest for digest, standing in self._standing.items() if standing.said is not None
            ]
            await self._each("dropping", gone, self._drop_unless_there)
            await self._each("dropping", self._digests, self._drop_digest_unless_true)
        for digest in self._cleared:
            self._count_dropped(digest)
        return self._tally

    async def _read_index(self, source: str | None) -> None:
        """Keep what stands in the index; of removed entries, too, the revision counts."""
        async with aclosing(self._connection.entries(INDEX)) as entries:
            async for digest, entry in entries:
                record = _record(digest, entry)
                if entry.value and record is None:
                    await self._clear(INDEX, digest, entry)
                elif record is None or _is_of(source, record.manifest.key):
                    said = _hash(record) if record else None
                    self._standing[digest] = Standing(revision=entry.revision, said=said)
        async with aclosing(self._connection.entries(DIGESTS)) as entries:
            async for place, entry in entries:
                archive = read_digest(place, entry)
                if archive is None:
                    await self._clear(DIGESTS, place, entry)
                elif source in {None, archive.source}:
                    self._digests.add(place)

    async def _clear(self, bucket: str, key: str, entry: Entry) -> None:
        """Remove what cannot be read, of whichever source, and marks of what was removed."""
        if entry.value:
            self._cleared.add(key.rpartition(".")[2])
            self._connection.note_unreadable(bucket, key, entry.revision)
        await self._connection.purge(bucket, key, revision=entry.revision)

    async def _list(self, source: str | None) -> Iterable[str]:
        """Return the keys of all archives that any region has."""
        keys: dict[str, None] = {}
        failure = StorageUnavailable("there is no region")
        for region in self._storage.regions:
            try:
                async with aclosing(self._storage.iter_archives(source, region=region)) as archives:
                    async for archive in archives:
                        keys[archive.key] = None
                        self._tally.listed = len(keys)
                        self._told(self._tally)
            except StorageUnavailable as exc:
                log.warning("rebuild.not_listed", region=region, **exc.log_fields)
                self._tally.silent.append(region)
                failure = exc
        if len(self._tally.silent) == len(self._storage.regions):
            raise failure
        return keys

    async def _each(
        self, phase: str, keys: Iterable[str], work: Callable[[str], Awaitable[None]]
    ) -> None:
        """Have *work* done for all *keys*, some at a time."""
        self._tally.phase = phase
        left = iter(keys)

        async def work_on() -> None:
            for key in left:
                await work(key)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_A_TIME):
                    group.create_task(work_on())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _index(self, key: str) -> None:
        """Write down where the archive with this key is, unless that stands there."""
        archive = parse_key(key)
        found = await self._find(archive) if archive else None
        if archive and found and found.copies:
            record = CopiesRecord.of(found.copies, datetime.now(UTC), self._storage.bucket_ids)
            await self._write(archive, record, certain=not found.unreachable)
        self._tally.read += 1
        self._tally.unread += found is None or bool(found.unreachable)
        self._told(self._tally)

    async def _find(self, archive: Archive) -> StoredState | None:
        with suppress(StorageUnavailable):
            return await self._storage.find(archive)
        return None

    async def _write(self, archive: Archive, record: CopiesRecord, *, certain: bool) -> None:
        """An entry that knows of more regions is not made poorer by those that do not answer."""
        standing = self._standing.pop(archive.key_hash, Standing())
        self._cleared.discard(archive.key_hash)
        place = digest_key(record.manifest.sha256, archive)
        written = False
        if standing.said is None or (certain and standing.said != _hash(record)):
            written = await self._replace(
                INDEX, archive.key_hash, encode(record), standing.revision
            )
        if place in self._digests:
            self._digests.remove(place)
        else:
            written |= await self._replace(DIGESTS, place, archive.key.encode(), 0)
        if written:
            await self._tell_feed(archive.key_hash, record)
        self._tally.written += written
        self._tally.kept += not written

    async def _replace(self, bucket: str, key: str, value: bytes, revision: int) -> bool:
        """Write unless somebody else did; return whether it was written."""
        try:
            await self._connection.update(bucket, key, value, revision=revision)
        except WrongRevision:
            return False
        return True

    async def _drop_unless_there(self, digest: str) -> None:
        entry = await self._connection.get(INDEX, digest)
        record = _record(digest, entry) if entry else None
        if entry and record and await self._is_gone(record.manifest.key):
            await self._connection.purge(INDEX, digest, revision=entry.revision)
            await self._tell_feed(digest, record)
            self._count_dropped(digest)

    async def _drop_digest_unless_true(self, place: str) -> None:
        entry = await self._connection.get(DIGESTS, place)
        if entry and await self._is_gone(_text(entry), place):
            await self._connection.purge(DIGESTS, place, revision=entry.revision)
            self._count_dropped(place.rpartition(".")[2])

    async def _is_gone(self, key: str, place: str | None = None) -> bool:
        """Tell whether all regions say that there is no such archive, or none of this digest."""
        archive = parse_key(key)
        if archive is None:
            return True
        found = await self._find(archive)
        if found is None or found.copies is None:
            return found is not None and not found.unreachable
        return place is not None and place != digest_key(found.copies.manifest.sha256, archive)

    async def _tell_feed(self, digest: str, record: CopiesRecord) -> None:
        await self._connection.tell(COPIES, digest, record.manifest.sha256.encode())

    def _count_dropped(self, digest: str) -> None:
        self._dropped.add(digest)
        self._tally.dropped = len(self._dropped)
        self._told(self._tally)


def _record(digest: str, entry: Entry) -> CopiesRecord | None:
    record = decode_copies(entry.value)
    archive = parse_key(record.manifest.key) if record else None
    if record is None or archive is None or archive.key_hash != digest:
        return None
    return None if find_invalid_field(record.manifest, archive) else record


def _hash(record: CopiesRecord) -> int:
    """Return what stands for a record in this process: a million of them would not fit."""
    return hash((record.manifest, record.regions, frozenset(record.places.items())))


def _text(entry: Entry) -> str:
    return entry.value.decode(errors="replace")


def _is_of(source: str | None, key: str) -> bool:
    archive = parse_key(key) if source else None
    return source is None or (archive is not None and archive.source == source)
