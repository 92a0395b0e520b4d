"""Entries of the shared index, for background work that compares them with the buckets."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import Archive, Copies
from archiver.runtime.notifications import Subscribers


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """Copies, and when they were last seen in the buckets.

    ``revision`` is that of the stored entry, or 0 without one. ``moved`` is true if the entry
    names copies in other buckets than those of this process; these copies are left out.
    """

    copies: Copies
    checked_at: datetime
    revision: int = 0
    moved: bool = False


class IndexEntries(Protocol):
    """The entries of single archives. ``stale`` notifies of archives whose entry is too old."""

    stale: Subscribers[[Archive]]

    async def latest(self, archive: Archive) -> IndexEntry | None:
        """Return the stored entry of *archive* or, without one, the remembered entry."""

    def is_stale(self, entry: IndexEntry) -> bool:
        """Return whether the copies must be checked in the buckets again."""

    async def replace(self, archive: Archive, entry: IndexEntry, copies: Copies | None) -> None:
        """Replace *entry*, as ``latest`` returned it, by *copies*, seen in the buckets just now.

        An entry that was written in between is newer and stays. A difference is published.
        """

    def put_off(self, archive: Archive, copies: Copies) -> None:
        """Have this process trust *copies* for another period, if it remembers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """An entry as a scan yields it. ``key`` ends in the key hash of its archive.

    ``archive`` is None if the entry was unreadable and has just been removed. ``fingerprint`` is
    that of the copies, or None if the entry leads from a sha256 to an archive.
    """

    key: str
    revision: int
    archive: Archive | None = None
    sha256: str = ""
    fingerprint: int | None = None

    @property
    def key_hash(self) -> str:
        return self.key.rpartition(".")[2]


class IndexStore(Protocol):
    """The whole shared index: from archives to copies, and from a sha256 to archives.

    Every method raises EngineUnavailable.
    """

    async def prepare(self) -> None:
        """Create the index if it is missing."""

    def scan(self) -> AsyncGenerator[StoredEntry, None]:
        """Yield every entry. Entries that change during the scan may come twice, or not at all."""

    async def read(self, key: str) -> StoredEntry | None: ...

    async def remove(self, entry: StoredEntry) -> None:
        """Remove *entry* unless it has changed."""

    def fingerprint(self, copies: Copies) -> int:
        """Return the fingerprint of an entry that this process writes for *copies*."""

    def sha256_key(self, sha256: str, archive: Archive) -> str:
        """Return the key of the entry that leads from *sha256* to *archive*."""

    async def write(self, archive: Archive, copies: Copies, *, revision: int) -> bool:
        """Write the entry of *archive* over *revision*; return False if another one is there."""

    async def write_sha256(self, sha256: str, archive: Archive) -> bool:
        """Have *sha256* lead to *archive*; return False if that entry exists."""

    async def publish_change(self, key_hash: str, sha256: str) -> None:
        """Have every process forget what it remembers of the archive and the sha256."""
