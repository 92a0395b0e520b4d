"""From archives to their copies: this process, then NATS, then the buckets."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace as evolve
from datetime import UTC, datetime, timedelta

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.copies_entries import NO_ENTRY, CopiesEntries, unless_away
from archiver.jetstream.feed import COPIES
from archiver.jetstream.rev_index import RevIndex
from archiver.jetstream.sha256_index import Sha256Index
from archiver.model import Archive, Copies
from archiver.ports.index_entries import IndexEntry
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.hedging import hedged
from archiver.runtime.lookups import Lookup, Lookups
from archiver.runtime.notifications import Subscribers
from archiver.telemetry import METRICS, log

RECHECK_AFTER = timedelta(minutes=10)
"""How long a change may go unnoticed that no process published, such as a deleted object."""

TRUSTED_FOR = timedelta(minutes=30)
"""How long memory counts without a recheck. After an expiry, the bytes stay for an hour longer than
any link: by then, a process that the engine could not reach has looked into the buckets."""

COPIES_MAX_BYTES = 64 * MEGABYTE
"""About 50,000 entries, encoded as in NATS: about 1 kB each, and nothing for the garbage collector
to traverse. As objects they would take twice as much."""

ABSENT_MAX_BYTES = 8 * MEGABYTE
"""About 15,000 absent archives."""

ABSENT_TTL = timedelta(seconds=10)
"""Many clients that request one missing archive cause one lookup in the buckets. A commit ends
it."""

HEDGE_AFTER = timedelta(milliseconds=200)
"""A healthy engine answers in a few milliseconds."""

HEDGES_MAX = 64
"""Lookups in the buckets at a time while the engine is silent: some hundred requests per region."""

MOVED_TTL = timedelta(minutes=1)
"""Otherwise two processes with different settings would correct each other's entries at every
hit."""

WRITES_MAX = 3
"""A write fails if another process wrote the entry after it was read, which is rare."""

MOVED_MAX_BYTES = 4 * MEGABYTE


class JetStreamIndex:
    """Implements ``ports.index.Index`` and ``ports.index_entries.IndexEntries``.

    The feed keeps memory coherent: a process that records a change publishes it, and the others
    forget what they remember. After a gap in the feed, they forget everything. An entry older than
    *recheck_after* is still returned, and the ``stale`` subscribers are notified.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        storage: Storage,
        recheck_after: timedelta = RECHECK_AFTER,
        hedge_after: timedelta = HEDGE_AFTER,
        trusted_for: timedelta = TRUSTED_FOR,
    ) -> None:
        self.stale: Subscribers[[Archive]] = Subscribers()
        self._connection = connection
        self._storage = storage
        self._recheck_after = recheck_after
        self._hedge_after = hedge_after
        self._trusted_for = trusted_for
        self._entries = CopiesEntries(connection=connection, storage=storage)
        self._sha256s = Sha256Index(connection=connection)
        self.by_sha256 = self._sha256s.find
        revs = RevIndex(connection=connection)
        self.node, self.remember = revs.node, revs.remember
        self._copies: BoundedCache[str, bytes] = BoundedCache(max_bytes=COPIES_MAX_BYTES)
        self._absent: BoundedCache[str, datetime] = BoundedCache(
            ttl=ABSENT_TTL, max_bytes=ABSENT_MAX_BYTES
        )
        self._moved: BoundedCache[str, None] = BoundedCache(
            ttl=min(recheck_after, MOVED_TTL), max_bytes=MOVED_MAX_BYTES
        )
        self._lookups: Lookups[IndexEntry | None] = Lookups()
        self._hedges = 0
        levels = ("memory", "index", "buckets", "absent")
        self._count = {level: METRICS.index_lookups.labels(level=level).inc for level in levels}
        connection.feed.subscribe(COPIES, self._forget_changed)
        connection.feed.gaps.add(self._forget_all)

    def _forget_changed(self, key_hash: str, sha256: bytes) -> None:
        self._sha256s.forget(sha256.decode(errors="replace"))
        self._forget(key_hash)

    def _forget(self, key_hash: str) -> None:
        self._copies.pop(key_hash)
        self._absent.pop(key_hash)
        self._lookups.overtake(key_hash)

    def _forget_all(self) -> None:
        self._copies.clear()
        self._absent.clear()
        self._sha256s.forget_all()
        self._lookups.overtake_all()

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        remembered = self._remembered(archive)
        if remembered and datetime.now(UTC) - remembered.checked_at < self._trusted_for:
            self._count["memory"]()
            return self._returned(archive, remembered)
        absent_at = self._absent.get(archive.key_hash)
        if absent_at and (since is None or absent_at >= since):
            self._count["absent"]()
            return None
        try:
            entry = await self._look_up_once(archive, since)
        except StorageUnavailable:
            if remembered is None:
                raise
            entry = remembered
        return self._returned(archive, entry) if entry else None

    async def _look_up_once(self, archive: Archive, since: datetime | None) -> IndexEntry | None:
        return await self._lookups.join_or_start(
            archive.key_hash,
            lambda: hedged(
                self._look_up(archive),
                lambda: self._look_up_in_buckets(archive),
                after=self._hedge_after,
            ),
            remember=lambda lookup: self._remember_lookup(archive, lookup),
            since=since,
        )

    def _returned(self, archive: Archive, entry: IndexEntry) -> Copies:
        if self.is_stale(entry) and archive.key_hash not in self._moved:
            self.stale.notify(archive)
        if entry.moved:
            self._moved.put(archive.key_hash, None)
        return entry.copies

    async def _look_up(self, archive: Archive) -> IndexEntry | None:
        level = "index"
        stored, entry = await self._entries.read(archive)
        if entry is None:
            level, copies = "buckets", (await self._storage.find(archive)).copies
            if copies:
                now, revision = datetime.now(UTC), (stored or NO_ENTRY).revision
                entry = IndexEntry(copies=copies, checked_at=now, revision=revision)
                if stored:  # else the engine is away, and a write would take as long to fail
                    await self._store(archive, entry)
        self._count[level if entry else "absent"]()
        return entry

    async def _look_up_in_buckets(self, archive: Archive) -> IndexEntry | None:
        """Look in the buckets while the engine is silent, as during an election."""
        if self._hedges >= HEDGES_MAX:
            return None
        self._hedges += 1
        try:
            copies = (await self._storage.find(archive)).copies
        finally:
            self._hedges -= 1
        if copies is None:
            return None
        self._count["buckets"]()
        return IndexEntry(copies=copies, checked_at=datetime.now(UTC))

    async def record(self, archive: Archive, copies: Copies) -> None:
        self._forget(archive.key_hash)
        for _ in range(WRITES_MAX):
            stored, _ = await self._entries.read(archive)
            if stored is None:  # the engine is away, and a write would take as long to fail
                log.warning("index.not_written", key=archive.key, code=EngineUnavailable.code)
                break
            if stored.revision and not stored.value:  # purged since the copies were seen?
                if (actual := await self._copies_in_buckets(archive)) is None:
                    break
                copies = actual
            now = datetime.now(UTC)
            entry = IndexEntry(copies=copies, checked_at=now, revision=stored.revision)
            if await self._store(archive, entry):
                break
        await self._publish_change(archive, copies)

    async def _copies_in_buckets(self, archive: Archive) -> Copies | None:
        with suppress(StorageUnavailable):
            return (await self._storage.find(archive)).copies
        return None

    async def remove(self, archive: Archive, sha256s: Collection[str]) -> bool:
        """Remove the entry, leaving a marker.

        A lookup or a build that saw the copies before cannot write them over the marker.
        """
        _, entry = await self._entries.read(archive)
        indexed = [entry.copies.manifest.sha256] if entry else []
        await self._entries.void(archive)
        for sha256 in {*sha256s, *indexed}:
            await self._sha256s.remove(sha256, archive)
        self._forget(archive.key_hash)
        for sha256 in {*sha256s, *indexed} or {""}:
            await self._connection.feed.publish(COPIES, archive.key_hash, sha256.encode())
        return entry is not None

    def is_stale(self, entry: IndexEntry) -> bool:
        return entry.moved or datetime.now(UTC) - entry.checked_at >= self._recheck_after

    async def latest(self, archive: Archive) -> IndexEntry | None:
        before = self._remembered(archive)
        _, stored = await self._entries.read(archive)
        remembered = self._remembered(archive)
        if stored is None:
            return remembered
        if remembered and remembered.copies != stored.copies:
            self._forget(archive.key_hash)
        elif remembered and remembered == before:
            self._remember(archive, stored)
        return stored

    async def replace(self, archive: Archive, entry: IndexEntry, copies: Copies | None) -> None:
        if copies == entry.copies:
            self.put_off(archive, copies)
            if await self._update(archive, evolve(entry, checked_at=datetime.now(UTC))):
                sha256 = copies.manifest.sha256
                await unless_away(archive, self._sha256s.store_if_lost(sha256, archive))
            return
        self._forget(archive.key_hash)
        if copies:
            now = datetime.now(UTC)
            await self._store(archive, evolve(entry, copies=copies, checked_at=now))
        else:
            await self._entries.remove(archive, entry)
        await self._publish_change(archive, copies or entry.copies)

    async def _update(self, archive: Archive, entry: IndexEntry) -> bool:
        """Write *entry* over its revision; return False if another one is there by now."""
        updated = await self._entries.update(archive, entry)
        if not updated:
            self._forget(archive.key_hash)
        return updated

    async def _store(self, archive: Archive, entry: IndexEntry) -> bool:
        """Write *entry* as ``_update`` does, and then what leads from its sha256 to it."""
        if not await self._update(archive, entry):
            return False
        sha256 = entry.copies.manifest.sha256
        await unless_away(archive, self._sha256s.store(sha256, archive))
        return True

    async def _publish_change(self, archive: Archive, copies: Copies) -> None:
        sha256 = copies.manifest.sha256.encode()
        await self._connection.feed.publish(COPIES, archive.key_hash, sha256)

    def put_off(self, archive: Archive, copies: Copies) -> None:
        remembered = self._remembered(archive)
        if remembered and remembered.copies == copies:
            self._remember(archive, evolve(remembered, checked_at=datetime.now(UTC)))

    def _remembered(self, archive: Archive) -> IndexEntry | None:
        value = self._copies.get(archive.key_hash)
        return self._entries.decode(value) if value else None

    def _remember(self, archive: Archive, entry: IndexEntry) -> None:
        self._copies.put(archive.key_hash, self._entries.encode(entry))

    def _remember_lookup(self, archive: Archive, lookup: Lookup[IndexEntry | None]) -> None:
        if lookup.found:
            self._remember(archive, lookup.found)
        else:
            self._copies.pop(archive.key_hash)
            self._absent.put(archive.key_hash, lookup.began_at)
