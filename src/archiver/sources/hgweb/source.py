"""Adapter for hgweb: Mercurial's own web server, as hg.mozilla.org runs it."""

import re
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
    WrongNode,
)
from archiver.model import Archive, Node
from archiver.names import display_path
from archiver.ports.source import IdentityCheck, OnReceived, Stream
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch
from archiver.sources.hgweb.client import AmbiguousRev, HgwebClient
from archiver.sources.hgweb.files import ListedFile, TreeFiles
from archiver.sources.hgweb.revs import NODE_DIGITS, RevLookup
from archiver.sources.response import HostResponse

QUERY_DEADLINE = timedelta(seconds=10)
"""Time for a query that takes the host milliseconds, including the wait for a free slot."""

_ARCHIVE_NAME = re.compile(r"[A-Za-z0-9_-]*-([0-9a-f]{12})")
_NODE_LINE = re.compile(rb"^node: ([0-9a-f]{40})$", re.MULTILINE)

_PACKABLE_DATES = {"tar.gz": range(1 << 32), "zip": range(-(1 << 63), 1 << 31)}
"""Dates, in seconds since 1970, that hgweb can write. Other formats hold every date.
hgweb writes dates before 1980 to a zip as 1980."""


class HgwebSource:
    """Implements ``Source`` for one hgweb server."""

    def __init__(
        self, config: SourceConfig, fetch: Fetch, *, query_deadline: timedelta = QUERY_DEADLINE
    ) -> None:
        self.name = config.name
        self.served = config.served
        self.node_digits = frozenset({NODE_DIGITS})
        self.abbreviates = True
        self.completes = False
        self.lookup_concurrency = config.lookup_concurrency
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

    def download_url(self, archive: Archive) -> str | None:
        return self.url(archive) if self.served.fetchable(archive) == archive else None

    def identity_check(self, archive: Archive) -> IdentityCheck:
        return HgArchivalCheck(archive.node)

    @asynccontextmanager
    async def open(
        self,
        archive: Archive,
        *,
        on_received: OnReceived | None = None,  # noqa: ARG002 - the stream is the host's own
    ) -> AsyncIterator[Stream]:
        if archive not in self.served.candidates(archive):
            raise SuffixRefused(f"{self.name} does not serve such archives")
        await self._require_unshadowed(archive)
        url = self.url(archive)
        async with self._client.get(url, deadline=self._deadline) as response:
            if failure := self._failures.of_archive(archive, response):
                raise await self._empty_tree(archive, response) or failure
            root = _expected_root(archive)
            yield Stream(
                url=url,
                root=_announced_root(archive, response) or root,
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
        if archive.suffix not in _PACKABLE_DATES:
            return None
        file = await self._files.file_after(archive, after)
        return _find_unpackable(archive, file, is_first=not after) if file else None


def _announced_root(archive: Archive, response: HostResponse) -> str | None:
    """Return the root in the suggested file name; None if hgweb would not choose such a name."""
    name = _ARCHIVE_NAME.fullmatch(response.file_name.removesuffix(f".{archive.suffix}"))
    return name[0] if name and name[1] == archive.node[:12] else None


def _expected_root(archive: Archive) -> str:
    """Return the root that clients expect.

    hgweb builds it from the bytes of the repository's name and the rev. The name is that of the
    URL, unless the host configures another (``web.name``).
    """
    stem = re.sub(rb"\W+", b"-", archive.basename.encode()).decode("ascii")
    return f"{stem}-{archive.node[:12]}"


class HgArchivalCheck:
    """Implements ``IdentityCheck`` with ``.hg_archival.txt``.

    Mercurial writes this file first into an archive of a whole tree, unless its configuration
    (``ui.archivemeta``) says otherwise. The node is in its second line.
    """

    member = b".hg_archival.txt"

    def __init__(self, node: Node) -> None:
        self._node = node

    def check_content(self, content: bytes) -> None:
        line = _NODE_LINE.search(content)
        if not line or line[1].decode() != self._node:
            raise WrongNode("the archive is of another changeset than the requested one")


def _find_unpackable(archive: Archive, file: ListedFile, *, is_first: bool) -> NotPackable | None:
    """Return why hgweb always stops before *file*, or None.

    hgweb writes the changeset's date first, so the date matters only if the file *is_first*.
    """
    dates = _PACKABLE_DATES[archive.suffix]
    if is_first and file.date is not None and int(file.date) not in dates:
        date = int(file.date)
        return NotPackable(f"hgweb cannot write the changeset's date, {date}, to {archive.suffix}")
    if archive.suffix == "zip":
        try:
            file.path.decode()
        except UnicodeDecodeError:
            name = display_path(file.path)
            return NotPackable(f"hgweb cannot write the file name {name} to zip: it is not UTF-8")
    return None
