"""Requests to one hgweb, each with a deadline, a few at a time.

Lookups use the wire protocol (``?cmd=``, see ``hg help internals.wireprotocol``). It responds
within milliseconds where the JSON pages take minutes, works with every theme, and accepts names
with slashes.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from archiver.errors import ArchiverError, SourceTimeout
from archiver.sources.fetch import Fetch
from archiver.sources.hgweb.failures import Failures
from archiver.sources.hgweb.urls import HgwebUrls
from archiver.sources.response import HostResponse

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
