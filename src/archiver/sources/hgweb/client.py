"""Requests to one hgweb, each with a deadline, a few at a time; its addresses and its errors.

Lookups use the wire protocol (``?cmd=``, see ``hg help internals.wireprotocol``). It responds
within milliseconds where the JSON pages take minutes, works with every theme, and accepts names
with slashes.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from http import HTTPStatus
from urllib.parse import quote

from archiver.errors import (
    ArchiverError,
    NotAnArchive,
    SourceUnavailable,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.model import Archive, Node
from archiver.names import display_rev
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch, within
from archiver.sources.response import HostResponse
from archiver.sources.templates import fill

_SUFFIX_REASONS = ("unsupported archive type", "archive type not allowed")


class AmbiguousRev(UnknownRev):
    """The given digits begin more than one node."""


class InexpressibleRev(UnknownRev):
    """The host crashes on this name, which is not ASCII."""


class Failures:
    """Builds the errors of the source *name*."""

    def __init__(self, name: str) -> None:
        self._name = name

    def of_archive(self, archive: Archive, response: HostResponse) -> ArchiverError | None:
        """Return the error for a response that is not an archive. The reason phrase has details."""
        match response.status:
            case HTTPStatus.OK if response.is_html:
                return NotAnArchive(f"{self._name} sent a page instead of an archive")
            case HTTPStatus.OK:
                return None
            case 403 | 404 if response.reason.lower().startswith(_SUFFIX_REASONS):
                return SuffixRefused(f"{self._name} does not serve {archive.suffix}")
            case HTTPStatus.NOT_FOUND if archive.subdir:
                return self.unknown_subdir(archive)
            case HTTPStatus.NOT_FOUND:
                return self.unknown_rev(archive.repo, archive.node)
            case _:
                return response.error

    def unknown_repo(self, repo: str) -> UnknownRepo:
        return UnknownRepo(f"{self._name} has no repository {repo}")

    def unknown_rev(self, repo: str, rev: str) -> UnknownRev:
        return UnknownRev(f"{self._name} has no revision {display_rev(rev)} in {repo}")

    def unknown_subdir(self, archive: Archive) -> UnknownSubdir:
        return UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")

    def ambiguous(self, repo: str, rev: str) -> AmbiguousRev:
        return AmbiguousRev(f"{self._name} has several revisions {display_rev(rev)} in {repo}")

    def inexpressible(self, rev: str) -> InexpressibleRev | None:
        """Return the error for a crash on *rev*; None if *rev* is ASCII.

        Mercurial 7 on Python 3.11 cannot parse a query beyond ASCII. On Python 3.13 it can.
        """
        if rev.isascii():
            return None
        return InexpressibleRev(
            f"{self._name} crashes on the name {display_rev(rev)}: "
            "request the changeset by its node"
        )

    def malformed(self) -> SourceUnavailable:
        return SourceUnavailable(f"{self._name} sent a response that hgweb would not send")

    def unproven(self, archive: Archive, fault: str = "does not list the files") -> UnprovenArchive:
        return UnprovenArchive(
            f"{self._name} {fault} of {archive.node} in {archive.repo}, "
            f"so completeness cannot be proven (sources.{self._name}.completeness)"
        )


class HgwebUrls:
    """The template up to ``{repo}`` is the address of a repository."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._repo_template = template[: template.index("{repo}") + len("{repo}")]

    def archive(self, archive: Archive) -> str:
        """Return the address by the node's first 12 digits: hgweb names the root after them."""
        names = {"repo": archive.repo, "suffix": archive.suffix, "subdir": archive.subdir}
        url = fill(self._template, {**names, "rev": archive.node[:12]})
        return url if archive.subdir else url.removesuffix("/")

    def repo(self, repo: str) -> str:
        return fill(self._repo_template, {"repo": repo})

    def listing(self, repo: str, node: Node, folder: bytes) -> str:
        path = quote(folder.rstrip(b"/"), safe="/")
        return f"{self.repo(repo)}/json-manifest/{node}/{path}"


HEADERS: Mapping[str, str] = {"Connection": "keep-alive"}
"""hgweb sends chunked responses only on a connection that may continue."""

QUERY_MAX_BYTES = 4096


class HgwebClient:
    """Sends requests to one source. *query_deadline* includes the wait for a free slot."""

    def __init__(self, config: SourceConfig, fetch: Fetch, *, query_deadline: timedelta) -> None:
        self.config = config
        self.urls = HgwebUrls(config.url_template)
        self.failures = Failures(config.name)
        self._fetch = fetch
        self._query_slots = asyncio.Semaphore(config.lookup_concurrency)
        self._query_deadline = query_deadline

    def get(self, url: str, *, deadline: timedelta) -> AbstractAsyncContextManager[HostResponse]:
        return self._fetch.get(url, deadline=deadline, headers=HEADERS)

    async def query(
        self,
        repo: str,
        query: str,
        *,
        on_crash: ArchiverError | None = None,
        on_missing: ArchiverError | None = None,
        max_bytes: int = QUERY_MAX_BYTES,
    ) -> bytes:
        """Return the body at the address of *repo* followed by *query*.

        Raises UnknownRepo, *on_missing* if only the requested item is unknown, *on_crash* if the
        host crashed, or any other SourceError.
        """
        async with (
            within(self._query_deadline, source=self.config.name),
            self._query_slots,
            self.get(f"{self.urls.repo(repo)}{query}", deadline=self._query_deadline) as response,
        ):
            match response.status:
                case 200 if not response.is_html:
                    return await response.read_body(max_bytes)
                case 404 if on_missing and not response.is_html:
                    raise on_missing
                case 200 | 404:  # an HTML page is the index of a folder of repositories
                    raise self.failures.unknown_repo(repo)
                case 500 if on_crash:
                    raise on_crash
                case _:
                    raise response.error
