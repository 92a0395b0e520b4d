"""From archives to their copies, from revs to nodes: this process, then NATS, then the buckets."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from archiver.concurrency import Coalesce
from archiver.engine.connection import INDEX, REVS, Connection
from archiver.engine.digests import Digests
from archiver.engine.feed import COPIES, MOVED
from archiver.engine.records import (
    CopiesRecord,
    DecodeError,
    decode_copies,
    decode_resolved,
    encode,
)
from archiver.errors import EngineUnavailable
from archiver.memory import Memory
from archiver.model import Archive, Copies, rev_digest
from archiver.ports import Resolved, Storage
from archiver.telemetry import METRICS, log

COPIES_TTL = timedelta(minutes=10)
"""A bound on how long a change goes unnoticed that nobody told of, such as a wiped bucket."""

ABSENT_TTL = timedelta(seconds=10)
"""A crowd that asks for one missing archive looks into the buckets once. A commit ends it."""


class JetStreamIndex:
    """Implements ``ports.Index``.

    Memory is kept coherent by the feed: whoever records a change tells of it, and everyone else
    drops what they remember. After a gap in the feed, they drop everything.
    """

    def __init__(self, *, connection: Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage
        self._copies: Memory[str, Copies] = Memory(ttl=COPIES_TTL)
        self._absent: Memory[str, None] = Memory(ttl=ABSENT_TTL)
        self._nodes: Memory[str, Resolved] = Memory()
        self._digests = Digests(connection=connection)
        self._looking: Coalesce[str, Copies | None] = Coalesce()
        self._overtaken: dict[str, bool] = {}
        connection.on_gap(self._drop_all)
        connection.watch(COPIES, self._drop)
        connection.watch(MOVED, self._drop_node)

    def _drop(self, digest: str, sha256: bytes) -> None:
        self._digests.drop(sha256.decode(errors="replace"))
        self._copies.pop(digest)
        self._absent.pop(digest)
        if digest in self._overtaken:
            self._overtaken[digest] = True

    def _drop_node(self, digest: str, _payload: bytes) -> None:
        self._nodes.pop(digest)

    def _drop_all(self) -> None:
        self._copies.clear()
        self._absent.clear()
        self._nodes.clear()
        self._digests.drop_all()
        self._overtaken = dict.fromkeys(self._overtaken, True)

    async def copies(self, archive: Archive) -> Copies | None:
        if remembered := self._copies.get(archive.digest):
            METRICS.index_lookups.labels(level="memory").inc()
            return remembered
        if archive.digest in self._absent:
            METRICS.index_lookups.labels(level="absent").inc()
            return None
        return await self._looking.run(archive.digest, lambda: self._look_and_remember(archive))

    async def _look_and_remember(self, archive: Archive) -> Copies | None:
        """Remember what is found, unless there was news while it was looked for."""
        self._overtaken[archive.digest] = False
        try:
            copies = await self._look(archive)
        finally:
            overtaken = self._overtaken.pop(archive.digest)
        if copies and not overtaken:
            self._copies.put(archive.digest, copies)
        elif not overtaken:
            self._absent.put(archive.digest, None)
        return copies

    async def _look(self, archive: Archive) -> Copies | None:
        level, copies = "index", await self._stored(archive)
        if copies is None:
            level, copies = "buckets", (await self._storage.find(archive)).copies
            if copies:
                await self._store(archive, copies)
        METRICS.index_lookups.labels(level=level if copies else "absent").inc()
        return copies

    async def _stored(self, archive: Archive) -> Copies | None:
        try:
            entry = await self._connection.get(INDEX, archive.digest)
            record = decode_copies(entry.value) if entry else None
        except (EngineUnavailable, DecodeError):
            return None
        if record is None or record.manifest.key != archive.key:
            return None
        regions = tuple(r for r in self._storage.regions if r in record.regions)
        return Copies(manifest=record.manifest, regions=regions) if regions else None

    async def record(self, archive: Archive, copies: Copies) -> None:
        self._drop(archive.digest, b"")
        await self._store(archive, copies)
        await self._connection.tell(COPIES, archive.digest, copies.manifest.sha256.encode())

    async def _store(self, archive: Archive, copies: Copies) -> None:
        record = CopiesRecord(manifest=copies.manifest, regions=copies.regions)
        entry = self._connection.put(INDEX, archive.digest, encode(record))
        await asyncio.gather(
            self._written(archive, entry),
            self._written(archive, self._digests.store(copies.manifest.sha256, archive)),
        )

    async def _written(self, archive: Archive, writing: Awaitable[None]) -> None:
        try:
            await writing
        except EngineUnavailable as exc:
            log.warning("index.not_written", key=archive.key, code=exc.code)

    async def forget(self, archive: Archive) -> None:
        self._drop(archive.digest, b"")
        try:
            await self._connection.delete(INDEX, archive.digest)
        except EngineUnavailable as exc:
            log.warning("index.not_written", key=archive.key, code=exc.code)
        await self._connection.tell(COPIES, archive.digest)

    async def by_digest(self, sha256: str) -> Archive | None:
        return await self._digests.find(sha256)

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        key = rev_digest(source, repo, rev)
        if remembered := self._nodes.get(key):
            return remembered
        try:
            entry = await self._connection.get(REVS, key)
            resolved = decode_resolved(entry.value) if entry else None
        except (EngineUnavailable, DecodeError):
            return None
        if resolved:
            self._nodes.put(key, resolved)
        return resolved

    async def remember(self, source: str, repo: str, rev: str, resolved: Resolved) -> None:
        key = rev_digest(source, repo, rev)
        before = await self.node(source, repo, rev)
        try:
            await self._connection.put(REVS, key, encode(resolved))
        except EngineUnavailable as exc:
            log.warning("index.not_written", source=source, repo=repo, code=exc.code)
        if before and before.node != resolved.node:
            await self._connection.tell(MOVED, key)
        self._nodes.put(key, resolved)
