"""Downloads an archive, and resumes a download that breaks off, from any region."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from archiver.cli.answers import Located
from archiver.cli.client import Client
from archiver.cli.failures import CommandFailed, RetryLater, WrongBytes
from archiver.cli.output import Sink

PAUSE_S = 0.2
PAUSE_GROWTH = 3
PAUSE_MAX_S = 10.0
PROGRESS_BYTES = 1024 * 1024
"""An attempt that brings this much starts the count of failures again."""

Locate = Callable[[str, str], Awaitable[Located]]
"""Asks Archiver for a node's archive, by preference in a region, and waits if need be."""


class Download:
    """Brings one archive into a sink, by as many requests as it takes.

    After a failure it asks Archiver for a fresh link, because the old one may have expired. The
    link leads to the same region if that sent enough, else to the next region with a copy.
    """

    def __init__(
        self, *, client: Client, locate: Locate, retries: int, tell: Callable[[str], None]
    ) -> None:
        self._client = client
        self._locate = locate
        self._retries = retries
        self._tell = tell
        self._wrong: set[str] = set()
        self._discarded = 0

    async def run(self, located: Located, sink: Sink, report: Callable[[int], None]) -> Located:
        """Return where the last byte came from.

        Raises:
            RetryLater: As many attempts in a row as are allowed have failed.
            WrongBytes: Each region has other bytes than promised.
        """
        failures = 0
        while True:
            before, resumed = sink.size_bytes, sink.size_bytes > 0
            try:
                await self._client.download(located, sink, report)
            except WrongBytes as exc:
                failure: CommandFailed = exc
                self._discard(located, sink, exc, resumed=resumed)
                gained = False
            except RetryLater as exc:
                failure = exc
                gained = sink.size_bytes - before >= PROGRESS_BYTES
            else:
                return located
            failures = 1 if gained else failures + 1
            if failures > self._retries:
                raise failure
            self._tell(failure.message)
            await asyncio.sleep(_pause_s(failures))
            located = await self._next(located, failure, gained=gained)

    def _discard(self, located: Located, sink: Sink, failure: WrongBytes, *, resumed: bool) -> None:
        """Start again. A region from which all of the bytes came is not asked again."""
        self._discarded += 1
        if self._discarded > self._retries or not sink.restart():
            raise failure
        if not resumed:
            self._wrong.add(located.region)

    async def _next(self, last: Located, failure: CommandFailed, *, gained: bool) -> Located:
        """Return a fresh link, or the last one if Archiver does not answer."""
        try:
            region = last.region if gained else await self._next_region(last)
            fresh = await self._locate(last.node, region)
        except RetryLater:
            fresh = last
        if fresh.region in self._wrong:
            raise failure
        if fresh.sha256 != last.sha256:
            raise WrongBytes(f"Archiver promised sha256 {last.sha256}, and now {fresh.sha256}")
        return fresh

    async def _next_region(self, last: Located) -> str:
        """Return the next region with a copy, in alphabetical order."""
        having = {last.region}
        if last.status_url:
            with suppress(CommandFailed):
                having |= (await self._client.progress(last.status_url)).links.keys()
        ring = sorted(having - self._wrong | {last.region})
        return ring[(ring.index(last.region) + 1) % len(ring)]


def _pause_s(failures: int) -> float:
    pause_s = PAUSE_S
    for _ in range(failures - 1):
        pause_s = min(pause_s * PAUSE_GROWTH, PAUSE_MAX_S)
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - so that a fleet does not march in step
