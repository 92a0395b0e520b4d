"""The answers of regions, counted for their breakers in the background."""

import asyncio
import re

from archiver.breaker import BreakerFailure, BreakerName
from archiver.errors import StorageUnavailable
from archiver.guard import Guard
from archiver.model import Region

WAITING_MAX = 100
"""Answers that wait to be counted. More of them would say the same."""

_AWAY = re.compile(
    r"timeout|connection_refused|connection_lost|not_connected|unknown_host|http_5\d\d"
    r"|InternalError|ServiceUnavailable|SlowDown"
    r"|NoSuchBucket|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
)
"""S3's codes of a region that is away, or refuses everything, and with it presigned URLs."""


class RegionAnswers:
    """Counts the answers of regions. No request waits for that."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._waiting: asyncio.Queue[tuple[BreakerName, str]] = asyncio.Queue(WAITING_MAX)

    def note(self, region: Region, error: StorageUnavailable | None) -> None:
        """Count an answer of *region*: an error, or None if the request has worked.

        An error that may concern one object or one kind of request says nothing about the region.
        """
        name, code = BreakerName("region", region), ""
        if error is not None:
            code = error.s3_code or ""
            if not _AWAY.fullmatch(code):
                return
        elif self._waiting.empty() and self._guard.is_clean(name):
            return
        if not self._waiting.full():
            self._waiting.put_nowait((name, code))

    async def keep_counting(self) -> None:
        """Count the answers that are noted, until cancelled."""
        while True:
            name, code = await self._waiting.get()
            if code:
                await self._guard.fail(name, BreakerFailure(code=code))
            else:
                await self._guard.succeed(name)
            self._waiting.task_done()

    async def all_counted(self) -> None:
        """Return when every answer that was noted has been counted."""
        await self._waiting.join()
