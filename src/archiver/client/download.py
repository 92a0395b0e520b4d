"""A download that resumes after failures, from any region that has a copy."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from archiver.client.api_client import NETWORK_ERRORS, ApiClient, reason
from archiver.client.api_response import Located
from archiver.client.failures import CommandFailed, RetryLater, WrongBytes
from archiver.client.output import ArchiveWriter

CHUNK_BYTES = 1024 * 1024
PAUSE_S = 0.2
PAUSE_GROWTH = 3.0
PAUSE_MAX_S = 10.0
PROGRESS_BYTES = 1024 * 1024
"""A request that brings this much resets the count of failures."""

Locate = Callable[[str, str], Awaitable[Located]]
"""Locates the archive of a node, preferably in a region, and waits for it if necessary."""


@dataclass(slots=True, kw_only=True)
class ResumableDownload:
    """Downloads one archive with as many requests as necessary.

    After a failure it asks Archiver for a fresh link, because the old one may have expired. The
    fresh link leads to the same region if that sent enough bytes, else to the next region with a
    copy.
    """

    client: ApiClient
    locate: Locate
    retries: int
    on_retry: Callable[[str], None]
    bad_regions: set[str] = field(default_factory=set)
    discards: int = 0

    async def fetch(
        self, located: Located, writer: ArchiveWriter, report: Callable[[int], None]
    ) -> Located:
        """Download the archive, and return the location of its last byte.

        Raises RetryLater after too many failures in a row, or WrongBytes from every region.
        """
        failures = 0
        while True:
            before, resumed = writer.size_bytes, writer.size_bytes > 0
            try:
                await download_object(self.client.session, located, writer, report)
            except WrongBytes as exc:
                failure: CommandFailed = exc
                self._discard(located, writer, exc, resumed=resumed)
                progressed = False
            except RetryLater as exc:
                failure = exc
                progressed = writer.size_bytes - before >= PROGRESS_BYTES
            else:
                return located
            failures = 1 if progressed else failures + 1
            if failures > self.retries:
                raise failure
            self.on_retry(failure.message)
            await asyncio.sleep(_pause_s(failures))
            located = await self._relocate(located, failure, progressed=progressed)

    def _discard(
        self, located: Located, writer: ArchiveWriter, failure: WrongBytes, *, resumed: bool
    ) -> None:
        """Discard all bytes. A region that sent all of them is not used again."""
        self.discards += 1
        if self.discards > self.retries or not writer.restart():
            raise failure
        if not resumed:
            self.bad_regions.add(located.region)

    async def _relocate(
        self, last: Located, failure: CommandFailed, *, progressed: bool
    ) -> Located:
        """Return a fresh link, or the last one if Archiver does not respond."""
        try:
            region = last.region if progressed else await self._next_region(last)
            fresh = await self.locate(last.node, region)
        except RetryLater:
            fresh = last
        if fresh.region in self.bad_regions:
            raise failure
        if fresh.sha256 != last.sha256:
            raise WrongBytes(f"Archiver promised sha256 {last.sha256}, and now {fresh.sha256}")
        return fresh

    async def _next_region(self, last: Located) -> str:
        """Return the next region with a copy, in alphabetical order."""
        regions = {last.region}
        if last.status_url:
            with suppress(CommandFailed):
                status = await self.client.fetch_status(last.status_url)
                regions |= status.presigned_urls.keys()
        ring = sorted(regions - self.bad_regions | {last.region})
        return ring[(ring.index(last.region) + 1) % len(ring)]


def _pause_s(failures: int) -> float:
    pause_s = min(PAUSE_S * PAUSE_GROWTH ** (failures - 1), PAUSE_MAX_S)
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, to spread a fleet's retries


async def download_object(
    session: aiohttp.ClientSession,
    located: Located,
    writer: ArchiveWriter,
    report: Callable[[int], None],
) -> None:
    """Download the bytes that *writer* lacks, and call *report* with the size of each chunk.

    No `If-Range` is needed, because the sha256 also covers the bytes of earlier requests.

    Raises:
        RetryLater: S3 did not send the object, or only part of it.
        WrongBytes: S3 sent other bytes than promised.
    """
    if writer.size_bytes < located.size_bytes:
        async for chunk in _iter_chunks(session, located, writer.size_bytes):
            if writer.size_bytes + len(chunk) > located.size_bytes:
                raise WrongBytes(f"{located.label} sent more than {located.size_bytes:,} bytes")
            writer.write(chunk)
            report(len(chunk))
    if writer.size_bytes < located.size_bytes:
        raise RetryLater(
            f"the download from {located.label} broke off after {writer.size_bytes:,} "
            f"of {located.size_bytes:,} bytes"
        )
    if writer.sha256 != located.sha256:
        raise WrongBytes(
            f"the bytes from {located.label} have sha256 {writer.sha256}, not {located.sha256}"
        )


async def _iter_chunks(
    session: aiohttp.ClientSession, located: Located, start: int
) -> AsyncIterator[bytes]:
    """Yield the object's bytes from byte *start* on.

    The presigned URL is the only credential sent: S3 rejects requests with two.
    """
    headers = {"Range": f"bytes={start}-"} if start else None
    try:
        async with session.get(
            URL(located.url, encoded=True), headers=headers, allow_redirects=False
        ) as response:
            skip = _count_known_bytes(response, located, start)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                if missing := chunk[skip:]:
                    yield missing
                skip = max(0, skip - len(chunk))
    except NETWORK_ERRORS as exc:
        raise RetryLater(f"the download from {located.label} broke off{reason(exc)}") from exc


def _count_known_bytes(response: aiohttp.ClientResponse, located: Located, start: int) -> int:
    """Return how many bytes at the beginning of the body are known already.

    Content-Range says whether the body is a part, because rclone's S3 server sends parts with 200
    instead of 206: https://github.com/johannesboyne/gofakes3/pull/121
    """
    content_range = response.headers.get("Content-Range")
    expected_range = f"bytes {start}-{located.size_bytes - 1}/{located.size_bytes}"
    if response.status not in {200, 206} or content_range not in {None, expected_range}:
        raise RetryLater(f"{located.label} responded with {response.status}")
    expected = located.size_bytes - (start if content_range else 0)
    if response.content_length not in {None, expected}:
        raise WrongBytes(
            f"{located.label} sends {response.content_length:,} bytes, not {expected:,}"
        )
    return 0 if content_range else start
