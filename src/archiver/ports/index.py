"""The index: cached knowledge of copies and revs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import Archive, Copies, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The node to which a rev resolved, at a certain time."""

    node: Node
    at: datetime


class Index(Protocol):
    """A cache of the buckets and of resolved revs. It may be emptied at any time.

    Methods raise only the errors they name. If the index is unreachable, reads find nothing and
    writes are lost.
    """

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        """Return the copies of *archive*; None if a region recently reported its absence.

        With *since*, the time of a possible commit, only later reports count.

        Raises:
            StorageUnavailable: The index has no entry, and no region responds.
        """

    async def record(self, archive: Archive, copies: Copies) -> None:
        """Store *copies*, and notify the processes that cache other ones.

        After a purge, they are stored only if the buckets still have copies.
        """

    async def remove(self, archive: Archive, sha256s: Collection[str]) -> bool:
        """Remove all that leads to *archive*, which the buckets no longer return.

        Every process forgets it. *sha256s* are the sums of its bytes, besides the one in the index.
        Returns whether the index had its copies.

        Raises:
            EngineUnavailable: The entries are not known to be removed.
        """

    async def by_sha256(self, sha256: str) -> Sequence[Archive]:
        """Return the archives that were recorded with these bytes, whether they have copies or not.

        Raises:
            EngineUnavailable: The index is unreachable. Buckets cannot be searched by SHA-256.
        """

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        """Return the cached node of *rev*, however old."""

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        """Store the node of *rev*; with *share*, for other processes, too."""
