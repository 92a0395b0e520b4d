"""From the SHA-256 of bytes to an archive that is made of them."""

from datetime import timedelta

from archiver.engine.connection import DIGESTS, Connection
from archiver.engine.looks import Looks
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
        self._looks: Looks[Archive | None] = Looks()

    async def find(self, sha256: str) -> Archive | None:
        """Return an archive with this digest, the latest to be stored. Raises EngineUnavailable."""
        if known := self._known.get(sha256):
            return known
        if sha256 in self._unknown:
            return None
        return await self._looks.run(
            sha256,
            lambda: self._look(sha256),
            remember=lambda look: self._remember(sha256, look.found),
        )

    async def _look(self, sha256: str) -> Archive | None:
        entry = await self._connection.get(DIGESTS, f"{sha256}.*")
        return parse_key(entry.value.decode(errors="replace")) if entry else None

    def _remember(self, sha256: str, archive: Archive | None) -> None:
        if archive:
            self._known.put(sha256, archive)
        else:
            self._unknown.put(sha256, None)

    async def store(self, sha256: str, archive: Archive) -> None:
        """Raises EngineUnavailable: It is not stored."""
        self.drop(sha256)
        await self._connection.put(DIGESTS, digest_key(sha256, archive), archive.key.encode())

    def drop(self, sha256: str) -> None:
        """Remember nothing of a digest that there is news of."""
        self._looks.overtake(sha256)
        self._known.pop(sha256)
        self._unknown.pop(sha256)

    def drop_all(self) -> None:
        self._looks.overtake_all()
        self._known.clear()
        self._unknown.clear()
