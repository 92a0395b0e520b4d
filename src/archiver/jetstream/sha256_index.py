"""From the SHA-256 of bytes to the archives that have these bytes: this process, then NATS."""

import asyncio
from datetime import timedelta

from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.streams import DIGESTS
from archiver.model import Archive, parse_key
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.lookups import Lookups

TTL = timedelta(seconds=10)
"""The same for known and unknown sums. Otherwise the time to an answer would show a client that
an archive that it may not read has these bytes."""

KNOWN_MAX_BYTES = 8 * MEGABYTE
UNKNOWN_MAX_BYTES = 4 * MEGABYTE
"""About 5,000 known sums, since few archives have the same bytes, and 10,000 unknown ones."""

ARCHIVES_MAX = 16
"""More have the same bytes only if a repository has as many clones of the same name."""


def sha256_key(sha256: str, archive: Archive) -> str:
    """Return the key that says that *archive* has this *sha256*.

    Each archive has a key of its own. Two archives with the same bytes do not overwrite each other,
    and neither must be read before the other is written.
    """
    return f"{sha256}.{archive.key_hash}"


def parse_sha256_entry(key: str, entry: KvEntry) -> Archive | None:
    """Return the archive that *entry* names, if it may be named under this key."""
    archive = parse_key(entry.value.decode(errors="replace"))
    return archive if archive and archive.key_hash == key.rpartition(".")[2] else None


class Sha256Index:
    """The buckets cannot be searched for a sum, so there is no other source."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._known: BoundedCache[str, tuple[Archive, ...]] = BoundedCache(
            ttl=TTL, max_bytes=KNOWN_MAX_BYTES
        )
        self._unknown: BoundedCache[str, None] = BoundedCache(ttl=TTL, max_bytes=UNKNOWN_MAX_BYTES)
        self._lookups: Lookups[tuple[Archive, ...]] = Lookups()

    async def find(self, sha256: str) -> tuple[Archive, ...]:
        """Return archives with this *sha256*, in reverse order of recording.

        Raises:
            EngineUnavailable: The index cannot be read.
        """
        if known := self._known.get(sha256):
            return known
        if sha256 in self._unknown:
            return ()
        return await self._lookups.join_or_start(
            sha256,
            lambda: self._look_up(sha256),
            remember=lambda lookup: self._remember(sha256, lookup.found),
        )

    async def _look_up(self, sha256: str) -> tuple[Archive, ...]:
        keys = await self._connection.kv.keys(DIGESTS, f"{sha256}.*")
        if not keys:  # an unknown sum takes as long as a known one
            await self._connection.kv.get(DIGESTS, f"{sha256}.{sha256}")
        gets = (self._connection.kv.get(DIGESTS, key) for key in keys[:ARCHIVES_MAX])
        entries = zip(keys, await asyncio.gather(*gets), strict=False)
        existing = [(key, entry) for key, entry in entries if entry]
        existing.sort(key=lambda item: item[1].revision, reverse=True)
        archives: list[Archive] = []
        for key, entry in existing:
            if archive := parse_sha256_entry(key, entry):
                archives.append(archive)
            else:
                await self._connection.kv.remove_unreadable(DIGESTS, key, entry)
        return tuple(archives)

    def _remember(self, sha256: str, archives: tuple[Archive, ...]) -> None:
        if archives:
            self._known.put(sha256, archives)
        else:
            self._unknown.put(sha256, None)

    async def store(self, sha256: str, archive: Archive) -> None:
        """Have *sha256* lead to *archive*. Raises EngineUnavailable."""
        self.forget(sha256)
        await self._connection.kv.put(DIGESTS, sha256_key(sha256, archive), archive.key.encode())

    async def store_if_lost(self, sha256: str, archive: Archive) -> None:
        """Do as ``store`` does, unless the engine has the entry. Raises EngineUnavailable."""
        if await self._connection.kv.get(DIGESTS, sha256_key(sha256, archive)) is None:
            await self.store(sha256, archive)

    async def remove(self, sha256: str, archive: Archive) -> None:
        """Have *sha256* no longer lead to *archive*. Raises EngineUnavailable."""
        self.forget(sha256)
        key = sha256_key(sha256, archive)
        if entry := await self._connection.kv.get_or_marker(DIGESTS, key):
            await self._connection.kv.purge(DIGESTS, key, revision=entry.revision)

    def forget(self, sha256: str) -> None:
        """Forget what is cached of a sum whose archives have changed."""
        self._lookups.overtake(sha256)
        self._known.pop(sha256)
        self._unknown.pop(sha256)

    def forget_all(self) -> None:
        self._lookups.overtake_all()
        self._known.clear()
        self._unknown.clear()
