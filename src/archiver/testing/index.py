"""An index in the memory of one process."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Archive, Copies, rev_hash
from archiver.ports.index import Resolved
from archiver.ports.storage import Storage
from archiver.runtime.notifications import Notifications


class MemoryIndex:
    """Implements ``ports.index.Index``. With *storage*, it looks up unknown archives there.

    ``digests`` leads from a sha256 to archives; tests may falsify it. ``outage`` is raised by
    ``by_sha256`` and ``remove``. ``shared`` are the revs that other processes would know.
    """

    def __init__(
        self, *, storage: Storage | None = None, notifications: Notifications | None = None
    ) -> None:
        self._storage = storage
        self._notifications = notifications or Notifications()
        self._copies: dict[str, Copies] = {}
        self._removed: set[str] = set()
        self.digests: dict[str, list[Archive]] = {}
        self.outage: ArchiverError | None = None
        self._nodes: dict[tuple[str, str, str], Resolved] = {}
        self.shared: set[tuple[str, str, str]] = set()

    async def copies(
        self,
        archive: Archive,
        *,
        since: datetime | None = None,  # noqa: ARG002 - no absence is remembered
    ) -> Copies | None:
        if archive.key not in self._copies and self._storage:
            found = await self._storage.find(archive)
            if found.copies:
                await self.record(archive, found.copies)
        return self._copies.get(archive.key)

    async def record(self, archive: Archive, copies: Copies) -> None:
        if archive.key in self._removed:
            actual = await self._stored(archive)
            if actual is None:
                return
            self._removed.remove(archive.key)
            copies = actual
        self._copies[archive.key] = Copies(  # as in NATS, whose entries are small
            manifest=copies.manifest.without_commit(), regions=copies.regions
        )
        archives = self.digests.setdefault(copies.manifest.sha256, [])
        if archive in archives:
            archives.remove(archive)
        archives.insert(0, archive)
        self._notifications.publish(archive.key_hash)

    async def _stored(self, archive: Archive) -> Copies | None:
        with suppress(StorageUnavailable):
            return (await self._storage.find(archive)).copies if self._storage else None
        return None

    async def remove(self, archive: Archive, sha256s: Collection[str]) -> bool:
        if self.outage:
            raise self.outage
        self._removed.add(archive.key)
        known = self._copies.pop(archive.key, None)
        for sha256 in {*sha256s, *([known.manifest.sha256] if known else [])}:
            if archive in self.digests.get(sha256, []):
                self.digests[sha256].remove(archive)
        self._notifications.publish(archive.key_hash)
        return known is not None

    async def forget(self, archive: Archive) -> None:
        """Forget the copies of *archive*, as after a recheck that found one missing."""
        self._copies.pop(archive.key, None)
        self._notifications.publish(archive.key_hash)

    async def by_sha256(self, sha256: str) -> Sequence[Archive]:
        if self.outage:
            raise self.outage
        return tuple(self.digests.get(sha256, ()))

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        return self._nodes.get((source, repo, rev))

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        if share:
            self.shared.add((source, repo, rev))
        self._nodes[source, repo, rev] = resolved
        self._notifications.publish(rev_hash(source, repo, rev))
