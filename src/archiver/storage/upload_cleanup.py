"""What uploads leave behind that were given up: cleared away beside all else, sooner or later."""

import asyncio
from datetime import UTC, datetime, timedelta

from archiver.errors import StorageUnavailable
from archiver.storage.bucket import Bucket
from archiver.telemetry import describe, log

GRACE = timedelta(seconds=2)
"""How long an upload that was told to give up may take to abort by itself."""

LAST_LOOK = timedelta(seconds=2)
"""How much longer a build that failed waits until nothing is left. What a frozen region has is
cleared later."""

AT_A_TIME = 1000
"""Each is a task that sleeps. What comes on top is tried once; its parts are aborted a day later
(``Regions.clear_old_uploads``)."""

TRIES = 60
"""With a minute between them, about an hour of a region that is frozen."""

LONGEST_PAUSE_S = 60.0

LAST_MOMENT = timedelta(seconds=1)
"""How long a process that is about to end still waits for all this."""


class Leftovers:
    """Ends uploads that were given up, and removes what their regions have of them.

    An upload was told through its own stream to give up, so obstore aborts it, if it can: not while
    it waits for parts that a frozen region does not acknowledge. After *grace* it is cancelled, and
    what it left is looked for.
    """

    def __init__(self, *, grace: timedelta, at_a_time: int = AT_A_TIME) -> None:
        self._grace_s = grace.total_seconds()
        self.patience_s = self._grace_s + LAST_LOOK.total_seconds()
        self._at_a_time = at_a_time
        self._clearing: set[asyncio.Task[None]] = set()

    def take(
        self, bucket: Bucket, object_key: str, upload: asyncio.Task[None], *, doomed: bool
    ) -> asyncio.Task[None]:
        """Return what ends when *upload* has, and nothing is left of it as far as that may be.

        The object is deleted only if its key is *doomed*, so that no manifest will ever name it.
        Any other key may be that of a committed archive by the time that its region answers, and
        the object its copy.
        """
        tries = TRIES if len(self._clearing) < self._at_a_time else 1
        clearing = asyncio.create_task(
            self._clear(bucket, object_key, upload, doomed=doomed, tries=tries)
        )
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)
        return clearing

    async def close(self) -> None:
        if self._clearing:
            await asyncio.wait(self._clearing, timeout=LAST_MOMENT.total_seconds())
        for clearing in self._clearing:
            clearing.cancel()

    async def _clear(
        self,
        bucket: Bucket,
        object_key: str,
        upload: asyncio.Task[None],
        *,
        doomed: bool,
        tries: int,
    ) -> None:
        given_up_at = datetime.now(UTC)
        await asyncio.wait([upload], timeout=self._grace_s)
        upload.cancel()
        await asyncio.wait([upload])
        if not upload.cancelled() and (exc := upload.exception()):
            log.error("upload.broken", region=bucket.region, key=object_key, exc_info=exc)
        pause_s = 1.0
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                if doomed:
                    await bucket.delete(object_key)
                await bucket.abort_uploads(object_key, until=given_up_at)
            except StorageUnavailable as exc:
                if not attempt:
                    told = {**exc.log_fields, "cause": describe(exc)}
                    log.warning("upload.left_behind", region=bucket.region, key=object_key, **told)
            else:
                return
