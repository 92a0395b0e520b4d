"""Requests to one hgweb, each with a deadline, a few at a time.

Lookups use the wire protocol (``?cmd=``, see ``hg help internals.wireprotocol``). It responds
within milliseconds where the JSON pages take minutes, works with every theme, and accepts names
with slashes.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

from archiver.errors import ArchiverError, SourceTimeout
from archiver.model import Archive, Node
from archiver.sources.fetch import Fetch
from archiver.sources.hgweb.failures import Failures
from archiver.sources.response import HostResponse


class HgwebUrls:
    """The template up to ``{repo}`` is the address of a repository."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._repo_template = template[: template.index("{repo}") + len("{repo}")]

    def archive(self, archive: Archive) -> str:
        """Return the address by the node's first 12 digits: hgweb names the root after them."""
        parts = {
            "{repo}": quote_path(archive.repo),
            "{rev}": archive.node[:12],
            "{suffix}": quote_path(archive.suffix),
            "{subdir}": quote_path(archive.subdir),
        }
        url = self._template
        for placeholder, value in parts.items():
            url = url.replace(placeholder, value)
        return url if archive.subdir else url.removesuffix("/")

    def repo(self, repo: str) -> str:
        return self._repo_template.replace("{repo}", quote_path(repo))

    def listing(self, repo: str, node: Node, folder: bytes) -> str:
        path = quote(folder.rstrip(b"/"), safe="/")
        return f"{self.repo(repo)}/json-manifest/{node}/{path}"


def quote_path(path: str) -> str:
    return "/".join(quote(segment, safe="") for segment in path.split("/"))


HEADERS: Mapping[str, str] = {"Connection": "keep-alive"}
"""hgweb sends chunked responses only on a connection that may continue."""

QUERY_MAX_BYTES = 4096


class HgwebClient:
    """Sends requests to the source *name*. *query_deadline* includes the wait for a free slot."""

    def __init__(
        self,
        *,
        name: str,
        urls: HgwebUrls,
        fetch: Fetch,
        query_concurrency: int,
        query_deadline: timedelta,
    ) -> None:
        self.name = name
        self.urls = urls
        self.failures = Failures(name)
        self._fetch = fetch
        self._query_slots = asyncio.Semaphore(query_concurrency)
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

        Raises:
            UnknownRepo: The host has no such repository.
            SourceError: The host failed or did not respond.
            *on_crash*: The host crashed.
            *on_missing*: The repository exists and lacks the requested item.
        """
        async with (
            self.within(self._query_deadline),
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

    @asynccontextmanager
    async def within(self, deadline: timedelta) -> AsyncIterator[None]:
        """Limit the block to *deadline*. Raises SourceTimeout."""
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                yield
        except TimeoutError as exc:
            raise SourceTimeout(f"{self.name} took too long") from exc
