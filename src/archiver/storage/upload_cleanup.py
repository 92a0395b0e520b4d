"""Removes, in the background, what abandoned uploads leave in their regions."""

import asyncio
from datetime import UTC, datetime, timedelta

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage.bucket import Bucket
from archiver.telemetry import describe, log

GRACE = timedelta(seconds=2)
"""How long an abandoned upload may take to abort by itself."""

BUILD_WAIT = timedelta(seconds=2)
"""How much longer than the grace period a failed build waits for the cleanup. Frozen regions are
cleaned up later."""

MAX_RETRIED = 1000
"""Cleanups that retry at a time; each is a sleeping task. A cleanup beyond this number is tried
once. Its parts are aborted a day later (``upkeep.sweep``)."""

TRIES = 60
"""With a minute between tries, a cleanup outlasts about an hour of a frozen region."""

MAX_PAUSE_S = 60.0

CLOSE_WAIT = timedelta(seconds=1)
"""How long an ending process waits for running cleanups."""


class UploadCleanup:
    """Ends abandoned uploads and removes their objects and parts.

    An upload learns from its own stream that it is abandoned, and obstore then aborts it. It cannot
    do so while it waits for a frozen region to acknowledge parts. So the upload is cancelled after
    *grace*, and its parts are listed and aborted.
    """

    def __init__(self, *, grace: timedelta, max_retried: int = MAX_RETRIED) -> None:
        self._grace_s = grace.total_seconds()
        self.build_wait_s = self._grace_s + BUILD_WAIT.total_seconds()
        self._max_retried = max_retried
        self._running: set[asyncio.Task[None]] = set()
        self._newest: dict[tuple[Region, str], asyncio.Task[None]] = {}

    def follow(self, bucket: Bucket, object_key: str, upload: asyncio.Task[None]) -> None:
        """Let earlier cleanups of the key wait for *upload*, so that they do not abort it.

        Its start cannot tell them apart: servers round it to seconds, by their own clocks.
        """
        place = (bucket.region, object_key)
        self._newest[place] = upload

        def forget(_: asyncio.Task[None]) -> None:
            if self._newest.get(place) is upload:
                del self._newest[place]

        upload.add_done_callback(forget)

    def start(
        self, bucket: Bucket, object_key: str, upload: asyncio.Task[None], *, delete_object: bool
    ) -> asyncio.Task[None]:
        """Return a task that ends *upload* and removes what is left of it.

        Pass *delete_object* only if no manifest will ever name the key. Otherwise, by the time that
        the region answers, the object may be a committed copy.
        """
        tries = TRIES if len(self._running) < self._max_retried else 1
        task = asyncio.create_task(
            self._clean_up(bucket, object_key, upload, delete_object=delete_object, tries=tries)
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_WAIT.total_seconds())
        for task in self._running:
            task.cancel()

    async def _clean_up(
        self,
        bucket: Bucket,
        object_key: str,
        upload: asyncio.Task[None],
        *,
        delete_object: bool,
        tries: int,
    ) -> None:
        abandoned_at = datetime.now(UTC)
        await asyncio.wait([upload], timeout=self._grace_s)
        upload.cancel()
        await asyncio.wait([upload])
        if not upload.cancelled() and (exc := upload.exception()):
            log.error("upload.broken", region=bucket.region, key=object_key, exc_info=exc)
        pause_s = 1.0
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            try:
                if delete_object:
                    await bucket.delete_object(object_key)
                while newer := self._newest.get((bucket.region, object_key)):
                    await asyncio.wait([newer])
                await bucket.abort_uploads(object_key, until=abandoned_at)
            except StorageUnavailable as exc:
                if not attempt:
                    fields = {**exc.log_fields, "cause": describe(exc)}
                    log.warning(
                        "upload.left_behind", region=bucket.region, key=object_key, **fields
                    )
            else:
                return
