"""From archives to their copies, from revs to nodes: this process, then NATS, then the buckets."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace as evolve
from datetime import UTC, datetime, timedelta

from archiver.binding import unbound
from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.feed import COPIES, MOVED
from archiver.jetstream.kv_buckets import INDEX, REVS
from archiver.jetstream.records import CopiesRecord, RevRecord, decode_copies, decode_rev, encode
from archiver.jetstream.sha256_index import Sha256Index
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive, Copies, Region, rev_hash
from archiver.ports.index import Resolved
from archiver.ports.index_entries import IndexEntry
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.hedging import hedged
from archiver.runtime.lookups import Lookup, Lookups
from archiver.runtime.subscribers import Subscribers
from archiver.telemetry import METRICS, log

RECHECK_AFTER = timedelta(minutes=10)
"""A bound on how long a change goes unnoticed that nobody told of, such as a deleted object."""

LEVELS = ("memory", "index", "buckets", "absent")

COPIES_MAX_BYTES = 64 * MEGABYTE
"""Some 50,000. They are kept as they stand in NATS: some 1 kB each, and nothing for the garbage
collector to walk through, where objects take twice as much."""

ABSENT_MAX_BYTES = 8 * MEGABYTE
NODES_MAX_BYTES = 16 * MEGABYTE
"""Some 15,000 absent archives, and some 25,000 revs."""

ABSENT_TTL = timedelta(seconds=10)
"""A crowd that asks for one missing archive looks into the buckets once. A commit ends it."""

HEDGE_AFTER = timedelta(milliseconds=200)
"""An engine that is well answers in a few milliseconds."""

ASIDES_MAX = 64
"""Looks into the buckets at a time for which the engine has only been silent so far. Together they
are some hundred requests to each region."""

MOVED_TTL = timedelta(minutes=1)
"""Two processes whose settings differ would else correct each other's entries at every hit."""

MOVED_MAX_BYTES = 4 * MEGABYTE

NOTHING = Entry(value=b"", revision=0)


class JetStreamIndex:
    """Implements ``ports.Index``.

    Memory is kept coherent by the feed: whoever records a change tells of it, and everyone else
    drops what they remember. After a gap in the feed, they drop everything. What nobody has seen in
    the buckets for *recheck_after* is given out all the same, but who asked for it ``on_old`` is
    told.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        storage: Storage,
        recheck_after: timedelta = RECHECK_AFTER,
        hedge_after: timedelta = HEDGE_AFTER,
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._recheck_after = recheck_after
        self._hedge_after = hedge_after
        self.stale: Subscribers[[Archive]] = Subscribers()
        self._copies: BoundedCache[str, bytes] = BoundedCache(max_bytes=COPIES_MAX_BYTES)
        self._absent: BoundedCache[str, datetime] = BoundedCache(
            ttl=ABSENT_TTL, max_bytes=ABSENT_MAX_BYTES
        )
        self._nodes: BoundedCache[str, Resolved] = BoundedCache(max_bytes=NODES_MAX_BYTES)
        self._moved: BoundedCache[str, None] = BoundedCache(
            ttl=min(recheck_after, MOVED_TTL), max_bytes=MOVED_MAX_BYTES
        )
        self._moved_regions: set[Region] = set()
        self._sha256s = Sha256Index(connection=connection)
        self._lookups: Lookups[IndexEntry | None] = Lookups()
        self._asides = 0
        self._count = {level: METRICS.index_lookups.labels(level=level).inc for level in LEVELS}
        connection.feed.gaps.add(self._drop_all)
        connection.feed.subscribe(COPIES, self._drop)
        connection.feed.subscribe(MOVED, self._drop_node)

    def _drop(self, digest: str, sha256: bytes) -> None:
        self._sha256s.drop(sha256.decode(errors="replace"))
        self._copies.pop(digest)
        self._absent.pop(digest)
        self._lookups.overtake(digest)

    def _drop_node(self, digest: str, _payload: bytes) -> None:
        self._nodes.pop(digest)

    def _drop_all(self) -> None:
        self._copies.clear()
        self._absent.clear()
        self._nodes.clear()
        self._sha256s.drop_all()
        self._lookups.overtake_all()

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        if seen := self._remembered(archive):
            self._count["memory"]()
            return self._given(archive, seen)
        if self._is_absent(archive, since):
            self._count["absent"]()
            return None
        seen = await self._lookups.run(
            archive.key_hash,
            lambda: hedged(
                self._look(archive), lambda: self._look_aside(archive), after=self._hedge_after
            ),
            remember=lambda look: self._remember_look(archive, look),
            since=since,
        )
        return self._given(archive, seen) if seen else None

    def _is_absent(self, archive: Archive, since: datetime | None) -> bool:
        looked_at = self._absent.get(archive.key_hash)
        return looked_at is not None and (since is None or looked_at >= since)

    def is_stale(self, seen: IndexEntry) -> bool:
        return seen.moved or datetime.now(UTC) - seen.checked_at >= self._recheck_after

    def _given(self, archive: Archive, seen: IndexEntry) -> Copies:
        if self.is_stale(seen) and archive.key_hash not in self._moved:
            self.stale.notify(archive)
        if seen.moved:
            self._moved.put(archive.key_hash, None)
        return seen.copies

    async def latest(self, archive: Archive) -> IndexEntry | None:
        """Return what the fleet says of *archive*, or if it says nothing, what is remembered."""
        before = self._remembered(archive)
        _entry, stored = await self._stored(archive)
        remembered = self._remembered(archive)
        if stored is None:
            return remembered
        if remembered and remembered.copies != stored.copies:
            self._drop(archive.key_hash, b"")
        elif remembered and remembered == before:
            self._remember(archive, stored)
        return stored

    async def replace(self, archive: Archive, seen: IndexEntry, copies: Copies | None) -> None:
        """Put the *copies* that are there in the place of what ``latest`` had *seen*.

        Whoever wrote in between knows better. Only a difference is news.
        """
        if copies == seen.copies:
            self.put_off(archive, copies)
            await self._update(archive, evolve(seen, checked_at=datetime.now(UTC)))
            return
        self._drop(archive.key_hash, b"")
        if copies:
            checked = evolve(seen, copies=copies, checked_at=datetime.now(UTC))
            await self._update(archive, checked)
            await self._lead(archive, copies)
        else:
            purge = self._connection.kv.purge(INDEX, archive.key_hash, revision=seen.revision)
            await self._written(archive, purge)
        sha256 = (copies or seen.copies).manifest.sha256
        await self._connection.feed.publish(COPIES, archive.key_hash, sha256.encode())

    async def _update(self, archive: Archive, checked: IndexEntry) -> None:
        """Write over the revision that was read; if another stands there by now, let it stand."""
        entry = self._encoded(checked)
        try:
            await self._written(
                archive,
                self._connection.kv.update(
                    INDEX, archive.key_hash, entry, revision=checked.revision
                ),
            )
        except WrongRevision:
            self._drop(archive.key_hash, b"")

    def put_off(self, archive: Archive, copies: Copies) -> None:
        """Have this process take *copies* for true once more, if that is what it remembers."""
        remembered = self._remembered(archive)
        if remembered and remembered.copies == copies:
            self._remember(archive, evolve(remembered, checked_at=datetime.now(UTC)))

    def _remembered(self, archive: Archive) -> IndexEntry | None:
        value = self._copies.get(archive.key_hash)
        record = decode_copies(value) if value else None
        return self._parse(record) if record else None

    def _remember(self, archive: Archive, seen: IndexEntry) -> None:
        self._copies.put(archive.key_hash, self._encoded(seen))

    def _remember_look(self, archive: Archive, look: Lookup[IndexEntry | None]) -> None:
        if look.found:
            self._remember(archive, look.found)
        else:
            self._absent.put(archive.key_hash, look.began_at)

    async def _look(self, archive: Archive) -> IndexEntry | None:
        level = "index"
        entry, seen = await self._stored(archive)
        if seen is None:
            level, copies = "buckets", (await self._storage.find(archive)).copies
            if copies:
                now, revision = datetime.now(UTC), (entry or NOTHING).revision
                seen = IndexEntry(copies=copies, checked_at=now, revision=revision)
                if entry:  # else the engine would take as long again to write nothing
                    await asyncio.gather(self._update(archive, seen), self._lead(archive, copies))
        self._count[level if seen else "absent"]()
        return seen

    async def _look_aside(self, archive: Archive) -> IndexEntry | None:
        """Look into the buckets while the engine is silent, as when it elects a leader.

        Returns None where only the engine can answer, or where too many looks are under way.
        """
        if self._asides >= ASIDES_MAX:
            return None
        self._asides += 1
        try:
            copies = (await self._storage.find(archive)).copies
        finally:
            self._asides -= 1
        if copies is None:
            return None
        self._count["buckets"]()
        return IndexEntry(copies=copies, checked_at=datetime.now(UTC))

    async def _stored(self, archive: Archive) -> tuple[Entry | None, IndexEntry | None]:
        """Return what stands in NATS, with the revision to write over, and what it says.

        None in place of an entry says that the engine does not answer.
        """
        try:
            entry = await self._connection.kv.get_or_marker(INDEX, archive.key_hash) or NOTHING
        except EngineUnavailable:
            return None, None
        seen = self._read(archive, entry.value, entry.revision) if entry.value else None
        if seen is None and entry.value and _record(archive, entry.value) is None:
            await self._connection.kv.remove_unreadable(INDEX, archive.key_hash, entry)
            return NOTHING, None
        return entry, seen

    def _read(self, archive: Archive, value: bytes, revision: int = 0) -> IndexEntry | None:
        record = _record(archive, value)
        if record is None:
            return None
        self._tell_moved(record)
        return self._parse(record, revision)

    def _encoded(self, seen: IndexEntry) -> bytes:
        return encode(CopiesRecord.of(seen.copies, seen.checked_at, self._storage.places))

    def _tell_moved(self, record: CopiesRecord) -> None:
        for region in record.moved(self._storage.places) - self._moved_regions:
            self._moved_regions.add(region)
            log.warning("region.moved", region=region, key=record.manifest.key)

    def _parse(self, record: CopiesRecord, revision: int = 0) -> IndexEntry | None:
        moved = record.moved(self._storage.places)
        regions = tuple(r for r in self._storage.regions if r in record.regions and r not in moved)
        if not regions:
            return None
        copies = Copies(manifest=record.manifest, regions=regions)
        return IndexEntry(
            copies=copies, checked_at=record.checked_at, revision=revision, moved=bool(moved)
        )

    async def record(self, archive: Archive, copies: Copies) -> None:
        self._drop(archive.key_hash, b"")
        seen = IndexEntry(copies=copies, checked_at=datetime.now(UTC))
        entry = self._connection.kv.put(INDEX, archive.key_hash, self._encoded(seen))
        await asyncio.gather(self._written(archive, entry), self._lead(archive, copies))
        await self._connection.feed.publish(
            COPIES, archive.key_hash, copies.manifest.sha256.encode()
        )

    async def _lead(self, archive: Archive, copies: Copies) -> None:
        """Have the digest of *copies* lead to *archive*."""
        await self._written(archive, self._sha256s.store(copies.manifest.sha256, archive))

    async def _written(self, archive: Archive, writing: Awaitable[object]) -> None:
        """Raises what *writing* does, unless it is that the engine is away."""
        try:
            await writing
        except EngineUnavailable as exc:
            log.warning("index.not_written", key=archive.key, code=exc.code)

    async def by_sha256(self, sha256: str) -> Sequence[Archive]:
        return await self._sha256s.find(sha256)

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        try:
            return await self._node(rev_hash(source, repo, rev))
        except EngineUnavailable:
            return None

    async def _node(self, key: str) -> Resolved | None:
        """Raises EngineUnavailable: Only the engine could tell."""
        if remembered := self._nodes.get(key):
            return remembered
        entry = await self._connection.kv.get(REVS, key)
        if entry is None:
            return None
        record = decode_rev(entry.value)
        if record is None:
            await self._connection.kv.remove_unreadable(REVS, key, entry)
            return None
        self._nodes.put(key, record.resolved())
        return record.resolved()

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        key, before = rev_hash(source, repo, rev), None
        try:
            before = await self._node(key)
            if share:
                await self._connection.kv.put(REVS, key, encode(RevRecord.of(resolved)))
        except EngineUnavailable as exc:
            log.warning("index.not_written", source=source, repo=repo, code=exc.code)
        if before and before.node != resolved.node:
            await self._connection.feed.publish(MOVED, key)
        self._nodes.put(key, resolved)


def _record(archive: Archive, value: bytes) -> CopiesRecord | None:
    record = decode_copies(value)
    return record if record and unbound(record.manifest, archive) is None else None
