"""Rebuilds the index from the manifests in the regions."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Copies, Region, parse_key
from archiver.ports.index_entries import IndexStore, StoredEntry
from archiver.ports.storage import Storage, StoredState
from archiver.telemetry import log

CONCURRENCY = 64
"""Archives that are looked up at a time. A region on another continent then returns some 500
manifests a second; S3 allows thousands of requests a second."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Progress of a rebuild, in archives.

    ``kept`` counts entries that were right or that another process wrote first, ``unread``
    archives that some region did not answer for. ``silent`` are the regions that were not listed.
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


OnProgress = Callable[[Tally], None]


class Rebuilder:
    """Makes the index agree with the regions, once, while the fleet goes on working.

    An entry is written or removed only over the revision that was read before the regions were
    asked. What another process wrote since then is newer and stays.
    """

    def __init__(self, *, store: IndexStore, storage: Storage, on_progress: OnProgress) -> None:
        self._store = store
        self._storage = storage
        self._on_progress = on_progress
        self._tally = Tally()
        self._indexed: dict[str, tuple[int, int]] = {}  # not the million entries themselves
        self._sha256_keys: set[str] = set()
        self._unreadable: set[str] = set()
        self._dropped: set[str] = set()

    async def rebuild(self, source: str | None = None) -> Tally:
        """Index every archive, or those of *source*, from its manifest.

        Then remove the entries of archives that no region has, if all regions were listed.

        Raises:
            EngineUnavailable: The index is only partly rebuilt.
            StorageUnavailable: No region was listed.
        """
        await self._store.prepare()
        await self._read_index(source)
        keys = await self._list_archives(source)
        await self._for_each("reading", keys, self._index_archive)
        if not self._tally.silent:
            await self._for_each("dropping", self._indexed, self._drop_if_gone)
            await self._for_each("dropping", self._sha256_keys, self._drop_if_gone)
        for key_hash in self._unreadable:
            self._count_dropped(key_hash)
        return self._tally

    async def _read_index(self, source: str | None) -> None:
        async with aclosing(self._store.scan()) as entries:
            async for entry in entries:
                if entry.archive is None:
                    self._unreadable.add(entry.key_hash)
                elif source not in {None, entry.archive.source}:
                    continue
                elif entry.fingerprint is None:
                    self._sha256_keys.add(entry.key)
                else:
                    self._indexed[entry.key] = entry.revision, entry.fingerprint

    async def _list_archives(self, source: str | None) -> Iterable[str]:
        keys: dict[str, None] = {}
        failure = StorageUnavailable("no region is configured")
        for region in self._storage.regions:
            try:
                async with aclosing(self._storage.iter_archives(source, region=region)) as archives:
                    async for archive in archives:
                        keys[archive.key] = None
                        self._tally.listed = len(keys)
                        self._on_progress(self._tally)
            except StorageUnavailable as exc:
                log.warning("rebuild.not_listed", region=region, **exc.log_fields)
                self._tally.silent.append(region)
                failure = exc
        if len(self._tally.silent) == len(self._storage.regions):
            raise failure
        return keys

    async def _for_each(
        self, phase: str, keys: Iterable[str], work: Callable[[str], Awaitable[None]]
    ) -> None:
        self._tally.phase = phase
        remaining = iter(keys)

        async def work_through() -> None:
            for key in remaining:
                await work(key)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work_through())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _index_archive(self, key: str) -> None:
        archive = parse_key(key)
        found = await self._find(archive) if archive else None
        if archive and found and found.copies:
            await self._write(archive, found.copies, complete=not found.unreachable)
        self._tally.read += 1
        self._tally.unread += found is None or bool(found.unreachable)
        self._on_progress(self._tally)

    async def _find(self, archive: Archive) -> StoredState | None:
        with suppress(StorageUnavailable):
            return await self._storage.find(archive)
        return None

    async def _write(self, archive: Archive, copies: Copies, *, complete: bool) -> None:
        """Write the entries of *archive*, unless they are right.

        If some region did not answer, an existing entry may know more than *copies*, and stays.
        """
        store, sha256 = self._store, copies.manifest.sha256
        revision, fingerprint = self._indexed.pop(archive.key_hash, (0, None))
        self._unreadable.discard(archive.key_hash)
        written = False
        if fingerprint is None or (complete and fingerprint != store.fingerprint(copies)):
            written = await store.write(archive, copies, revision=revision)
        sha256_key = store.sha256_key(sha256, archive)
        if sha256_key in self._sha256_keys:
            self._sha256_keys.remove(sha256_key)
        else:
            written |= await store.write_sha256(sha256, archive)
        if written:
            await store.publish_change(archive.key_hash, sha256)
        self._tally.written += written
        self._tally.kept += not written

    async def _drop_if_gone(self, key: str) -> None:
        entry = await self._store.read(key)
        if entry and entry.archive and await self._is_gone(entry, entry.archive):
            await self._store.remove(entry)
            if entry.sha256:
                await self._store.publish_change(key, entry.sha256)
            self._count_dropped(entry.key_hash)

    async def _is_gone(self, entry: StoredEntry, archive: Archive) -> bool:
        """Return whether all regions answered and none has *archive*, or none with this sha256."""
        found = await self._find(archive)
        if found is None or found.copies is None:
            return found is not None and not found.unreachable
        actual = self._store.sha256_key(found.copies.manifest.sha256, archive)
        return entry.fingerprint is None and entry.key != actual

    def _count_dropped(self, key_hash: str) -> None:
        self._dropped.add(key_hash)
        self._tally.dropped = len(self._dropped)
        self._on_progress(self._tally)
