"""A download that resumes after failures, from any region that has a copy."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from archiver.client.api_client import ApiClient
from archiver.client.api_response import Located
from archiver.client.failures import CommandFailed, RetryLater, WrongBytes
from archiver.client.output import ArchiveWriter

PAUSE_S = 0.2
PAUSE_GROWTH = 3
PAUSE_MAX_S = 10.0
PROGRESS_BYTES = 1024 * 1024
"""A request that brings this much resets the count of failures."""

Locate = Callable[[str, str], Awaitable[Located]]
"""Locates the archive of a node, preferably in a region, and waits for it if necessary."""


class ResumableDownload:
    """Downloads one archive with as many requests as necessary.

    After a failure it asks Archiver for a fresh link, because the old one may have expired. The
    fresh link leads to the same region if that sent enough bytes, else to the next region with a
    copy.
    """

    def __init__(
        self,
        *,
        client: ApiClient,
        locate: Locate,
        retries: int,
        on_retry: Callable[[str], None],
    ) -> None:
        self._client = client
        self._locate = locate
        self._retries = retries
        self._on_retry = on_retry
        self._bad_regions: set[str] = set()
        self._discards = 0

    async def run(
        self, located: Located, writer: ArchiveWriter, report: Callable[[int], None]
    ) -> Located:
        """Download the archive, and return the location of its last byte.

        Raises:
            RetryLater: Too many requests in a row have failed.
            WrongBytes: Every region has other bytes than promised.
        """
        failures = 0
        while True:
            before, resumed = writer.size_bytes, writer.size_bytes > 0
            try:
                await self._client.download(located, writer, report)
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
            if failures > self._retries:
                raise failure
            self._on_retry(failure.message)
            await asyncio.sleep(_pause_s(failures))
            located = await self._relocate(located, failure, progressed=progressed)

    def _discard(
        self, located: Located, writer: ArchiveWriter, failure: WrongBytes, *, resumed: bool
    ) -> None:
        """Discard all bytes. A region that sent all of them is not used again."""
        self._discards += 1
        if self._discards > self._retries or not writer.restart():
            raise failure
        if not resumed:
            self._bad_regions.add(located.region)

    async def _relocate(
        self, last: Located, failure: CommandFailed, *, progressed: bool
    ) -> Located:
        """Return a fresh link, or the last one if Archiver does not respond."""
        try:
            region = last.region if progressed else await self._next_region(last)
            fresh = await self._locate(last.node, region)
        except RetryLater:
            fresh = last
        if fresh.region in self._bad_regions:
            raise failure
        if fresh.sha256 != last.sha256:
            raise WrongBytes(f"Archiver promised sha256 {last.sha256}, and now {fresh.sha256}")
        return fresh

    async def _next_region(self, last: Located) -> str:
        """Return the next region with a copy, in alphabetical order."""
        regions = {last.region}
        if last.status_url:
            with suppress(CommandFailed):
                status = await self._client.fetch_status(last.status_url)
                regions |= status.presigned_urls.keys()
        ring = sorted(regions - self._bad_regions | {last.region})
        return ring[(ring.index(last.region) + 1) % len(ring)]


def _pause_s(failures: int) -> float:
    pause_s = PAUSE_S
    for _ in range(failures - 1):
        pause_s = min(pause_s * PAUSE_GROWTH, PAUSE_MAX_S)
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, to spread a fleet's retries
