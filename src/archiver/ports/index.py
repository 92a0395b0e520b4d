"""What is known of the buckets and of revs without asking them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import (
    Archive,
    Copies,
    Node,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a rev named at a certain moment."""

    node: Node
    at: datetime


class Index(Protocol):
    """What is known of the buckets and of revs without asking them: a cache that may be emptied.

    It raises only what its methods name: when it cannot be asked, it knows nothing; when it cannot
    be told, it forgets.
    """

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        """Return where the archive is. If that is nowhere, a region said so, lately.

        Not before *since*, if that is given: when something happened that may have put it there.

        Raises:
            StorageUnavailable: The index has no entry, and no region answers.
        """

    async def record(self, archive: Archive, copies: Copies) -> None:
        """Remember *copies*, and let every process that remembers otherwise know."""

    async def by_sha256(self, sha256: str) -> Sequence[Archive]:
        """Return archives that were recorded with these bytes; which have copies is not said.

        Raises:
            EngineUnavailable: It cannot be told, since the buckets cannot be asked for a digest.
        """

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None: ...

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        """Remember what *rev* means. With *share*, other processes get to know it as well."""
