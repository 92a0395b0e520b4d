"""Adapter for hgweb: Mercurial's own web server, as hg.mozilla.org runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from http import HTTPStatus

from archiver.errors import (
    EmptyTree,
    NotPackable,
    ShadowedNode,
    SourceError,
    SourceUnavailable,
    SuffixRefused,
    UnknownRev,
)
from archiver.model import Archive, Node
from archiver.ports.source import IdentityCheck, Stream
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch
from archiver.sources.hgweb.archives import (
    PACKABLE_DATES,
    HgArchivalCheck,
    announced_root,
    expected_root,
    find_unpackable,
)
from archiver.sources.hgweb.client import AmbiguousRev, HgwebClient
from archiver.sources.hgweb.files import TreeFiles
from archiver.sources.hgweb.revs import RevLookup
from archiver.sources.response import HostResponse

QUERY_DEADLINE = timedelta(seconds=10)
"""Time for a query that takes the host milliseconds, including the wait for a free slot."""


class HgwebSource:
    """Implements ``Source`` for one hgweb server."""

    def __init__(
        self, config: SourceConfig, fetch: Fetch, *, query_deadline: timedelta = QUERY_DEADLINE
    ) -> None:
        self.name = config.name
        self.served = config.served
        self._deadline = config.deadline
        self._trusted = config.trusted
        self._client = HgwebClient(config, fetch, query_deadline=query_deadline)
        self._failures = self._client.failures
        revs = RevLookup(self._client)
        self.url = self._client.urls.archive
        self.check_rev = revs.check_rev
        self.resolve = revs.resolve
        self.has_node = revs.has_node
        self._files = TreeFiles(self._client)

    def identity_check(self, archive: Archive) -> IdentityCheck:
        return HgArchivalCheck(archive.node)

    @asynccontextmanager
    async def open(self, archive: Archive) -> AsyncIterator[Stream]:
        if archive not in self.served.candidates(archive):
            raise SuffixRefused(f"{self.name} does not serve such archives")
        await self._require_unshadowed(archive)
        url = self.url(archive)
        async with self._client.get(url, deadline=self._deadline) as response:
            if failure := self._failures.of_archive(archive, response):
                raise await self._empty_tree(archive, response) or failure
            root = expected_root(archive)
            yield Stream(
                url=url,
                root=announced_root(archive, response) or root,
                client_root=root,
                size_bytes=response.declared_bytes,
                chunks=response.chunks(),
            )

    async def _require_unshadowed(self, archive: Archive) -> None:
        """Return if the node's first 12 digits resolve to it; a bookmark may have them as its name.

        hgweb reports a revision as unknown for any internal error, and so does a mirror that is
        behind. If the full node is known, the report is treated as temporary.
        """
        try:
            resolved: Node | None = await self.resolve(archive.repo, archive.node[:12])
        except AmbiguousRev:
            resolved = None
        except UnknownRev:
            if not await self.has_node(archive.repo, archive.node):
                raise self._failures.unknown_rev(archive.repo, archive.node) from None
            raise SourceUnavailable(
                f"{self.name} knows {archive.node} in {archive.repo}, but not its first 12 digits"
            ) from None
        if resolved != archive.node:
            raise ShadowedNode(
                f"{archive.node[:12]} in {archive.repo} does not resolve to {archive.node}"
            )

    async def _empty_tree(self, archive: Archive, response: HostResponse) -> EmptyTree | None:
        """Return the error if hgweb refused the archive because its tree has no files."""
        if response.status != HTTPStatus.FORBIDDEN or archive.subdir:
            return None
        with suppress(SourceError):
            try:
                await self._files.last_file(archive)
            except EmptyTree as exc:
                return exc
        return None

    async def last_file(self, archive: Archive) -> bytes | None:
        return None if self._trusted else await self._files.last_file(archive)

    async def explain_unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:
        if archive.suffix not in PACKABLE_DATES:
            return None
        file = await self._files.file_after(archive, after)
        return find_unpackable(archive, file, is_first=not after) if file else None
