"""From the SHA-256 of bytes to the archives that are made of them."""

import asyncio
from datetime import timedelta

from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.kv_buckets import DIGESTS
from archiver.model import Archive, parse_key
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.lookups import Lookups

KNOWN_TTL = timedelta(minutes=10)
"""Bytes never change, but archives are taken away, and another one may have the same bytes."""

UNKNOWN_TTL = timedelta(seconds=10)

KNOWN_MAX_BYTES = 8 * MEGABYTE
UNKNOWN_MAX_BYTES = 4 * MEGABYTE
"""Some 5,000 digests that are known, since hardly any two archives have the same bytes, and some
10,000 that are not."""

NAMED_MAX = 16
"""More have the same bytes only where a repository has as many clones of its own name."""


def sha256_key(sha256: str, archive: Archive) -> str:
    """Return where it stands that *archive* has this digest.

    Each archive has a place of its own: two that have the same bytes do not write over each other,
    and none has to be read before another one is written.
    """
    return f"{sha256}.{archive.key_hash}"


def parse_sha256_entry(place: str, entry: Entry) -> Archive | None:
    """Return the archive that *entry* names, if it is one that may be named in this place."""
    archive = parse_key(entry.value.decode(errors="replace"))
    return archive if archive and archive.key_hash == place.rpartition(".")[2] else None


class Sha256Index:
    """Looks for digests in this process, then in NATS. Nobody else could tell."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._known: BoundedCache[str, tuple[Archive, ...]] = BoundedCache(
            ttl=KNOWN_TTL, max_bytes=KNOWN_MAX_BYTES
        )
        self._unknown: BoundedCache[str, None] = BoundedCache(
            ttl=UNKNOWN_TTL, max_bytes=UNKNOWN_MAX_BYTES
        )
        self._lookups: Lookups[tuple[Archive, ...]] = Lookups()

    async def find(self, sha256: str) -> tuple[Archive, ...]:
        """Return archives with this digest, the latest to be stored first.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        if known := self._known.get(sha256):
            return known
        if sha256 in self._unknown:
            return ()
        return await self._lookups.run(
            sha256,
            lambda: self._look(sha256),
            remember=lambda look: self._remember(sha256, look.found),
        )

    async def _look(self, sha256: str) -> tuple[Archive, ...]:
        places = await self._connection.kv.keys(DIGESTS, f"{sha256}.*")
        gets = (self._connection.kv.get(DIGESTS, place) for place in places[:NAMED_MAX])
        entries = zip(places, await asyncio.gather(*gets), strict=False)
        there = [(place, entry) for place, entry in entries if entry]
        there.sort(key=lambda placed: placed[1].revision, reverse=True)
        named = [await self._named(place, entry) for place, entry in there]
        return tuple(archive for archive in named if archive)

    async def _named(self, place: str, entry: Entry) -> Archive | None:
        if not (archive := parse_sha256_entry(place, entry)):
            await self._connection.kv.remove_unreadable(DIGESTS, place, entry)
        return archive

    def _remember(self, sha256: str, archives: tuple[Archive, ...]) -> None:
        if archives:
            self._known.put(sha256, archives)
        else:
            self._unknown.put(sha256, None)

    async def store(self, sha256: str, archive: Archive) -> None:
        """Raises EngineUnavailable: It is not stored."""
        self.drop(sha256)
        await self._connection.kv.put(DIGESTS, sha256_key(sha256, archive), archive.key.encode())

    def drop(self, sha256: str) -> None:
        """Remember nothing of a digest that there is news of."""
        self._lookups.overtake(sha256)
        self._known.pop(sha256)
        self._unknown.pop(sha256)

    def drop_all(self) -> None:
        self._lookups.overtake_all()
        self._known.clear()
        self._unknown.clear()
