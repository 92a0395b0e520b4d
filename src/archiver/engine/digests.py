"""From the SHA-256 of bytes to an archive that is made of them."""

from datetime import timedelta

from archiver.concurrency import Coalesce
from archiver.engine.connection import DIGESTS, Connection
from archiver.memory import Memory
from archiver.model import Archive, parse_key

KNOWN_TTL = timedelta(minutes=10)
"""Bytes never change, but archives are taken away, and another one may have the same bytes."""

UNKNOWN_TTL = timedelta(seconds=10)

REMEMBERED_MAX = 10_000
"""Some 10 MB of archives."""


def digest_key(sha256: str, archive: Archive) -> str:
    """Return where it stands that *archive* has this digest.

    Each archive has a place of its own: two that have the same bytes do not write over each other,
    and none has to be read before another one is written.
    """
    return f"{sha256}.{archive.digest}"


class Digests:
    """Looks for digests in this process, then in NATS. Nobody else could tell."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._known: Memory[str, Archive] = Memory(ttl=KNOWN_TTL, size=REMEMBERED_MAX)
        self._unknown: Memory[str, None] = Memory(ttl=UNKNOWN_TTL, size=REMEMBERED_MAX)
        self._looking: Coalesce[str, Archive | None] = Coalesce()
        self._drops = 0

    async def find(self, sha256: str) -> Archive | None:
        """Return an archive with this digest, the latest to be stored. Raises EngineUnavailable."""
        if known := self._known.get(sha256):
            return known
        if sha256 in self._unknown:
            return None
        return await self._looking.run(sha256, lambda: self._look(sha256))

    async def _look(self, sha256: str) -> Archive | None:
        drops = self._drops
        entry = await self._connection.get(DIGESTS, f"{sha256}.*")
        archive = parse_key(entry.value.decode(errors="replace")) if entry else None
        if archive:
            self._known.put(sha256, archive)
        elif drops == self._drops:  # else this may be what there was news of
            self._unknown.put(sha256, None)
        return archive

    async def store(self, sha256: str, archive: Archive) -> None:
        """Raises EngineUnavailable: It is not stored."""
        self.drop(sha256)
        await self._connection.put(DIGESTS, digest_key(sha256, archive), archive.key.encode())

    def drop(self, sha256: str) -> None:
        """Remember nothing of a digest that there is news of."""
        self._drops += 1
        self._known.pop(sha256)
        self._unknown.pop(sha256)

    def drop_all(self) -> None:
        self._drops += 1
        self._known.clear()
        self._unknown.clear()
