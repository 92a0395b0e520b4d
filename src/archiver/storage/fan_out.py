"""Sends one stream to several buckets, so that a slow or failing one does not affect the others.

An upload is abandoned by an exception from its own chunks, because only then does obstore abort it
at the server. ``upload_cleanup`` does the rest.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Region
from archiver.storage.bucket import Bucket
from archiver.storage.upload_cleanup import UploadCleanup
from archiver.telemetry import METRICS
from archiver.telemetry.tracing import Kind, SpanName, stage

CHUNK_BYTES = 1 << 20
"""Minimum size of a chunk: passing on a chunk costs the same whatever its size."""

QUEUED_CHUNKS = 2
"""How far the fastest region may be ahead of the slowest, besides the parts in flight."""

MAX_LAG = timedelta(seconds=30)
"""How long a region may keep the others waiting. With 27 MiB in flight, it is then dead or slower
than 1 MB/s. A region that is the only one, or no slower than the others, has no such limit."""

MIN_LAG = timedelta(seconds=3)
"""The limit for an archive of a few bytes, whose copy a repair adds later. Each MiB adds a second,
up to MAX_LAG."""


class _Abandoned(Exception):
    """Ends an upload from within."""


class _RegionUpload:
    """One region's upload. Iterates over its own chunks, without needing to be closed.

    ``failure`` is why it was dropped, None if it was only aborted.
    """

    def __init__(self, *, bucket: Bucket, object_key: str) -> None:
        self.bucket = bucket
        self.region = bucket.region
        self.failure: ArchiverError | None = None
        self.stored = False
        self.all_sent = False
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_CHUNKS)
        self._abandoned = False
        self._read_bytes = 0
        self.task = asyncio.create_task(self._put(object_key))

    async def write(self, chunk: bytes | None) -> bool:
        """Send *chunk*, or None for the end; return whether the region is still active."""
        self.all_sent = self.all_sent or chunk is None
        if not self._abandoned:
            await self._queue.put(chunk)
        return self.failure is None

    async def wait(self) -> bool:
        """Wait for the end of the upload; return whether the region stored the object."""
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()
        return self.stored

    def abandon(self, failure: ArchiverError | None = None) -> None:
        """Have the upload abort itself."""
        if not self.task.done():
            self.failure = self.failure or failure
            self._release()

    def _release(self) -> None:
        """Release both the writer and the reader of chunks if they are waiting."""
        self._abandoned = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._queue.get()
        if self._abandoned:
            raise _Abandoned
        if chunk is None:
            raise StopAsyncIteration
        self._read_bytes += len(chunk)
        return chunk

    async def _put(self, object_key: str) -> None:
        with stage(SpanName.UPLOAD, kind=Kind.CLIENT, region=self.region) as upload:
            try:
                await self.bucket.put_object(object_key, self)
            except ArchiverError as exc:
                self.failure = self.failure or exc
            except _Abandoned:
                pass
            else:
                self.stored = self.failure is None and not self._abandoned
                METRICS.upload_bytes.labels(region=self.region).inc(self._read_bytes)
            finally:
                self._release()
                upload.set(size_bytes=self._read_bytes)
                if not self.stored:
                    upload.fail(self.failure.code if self.failure else "aborted")
                    _count_upload(self.region, "failed" if self.failure else "aborted")


class FanOutUpload:
    """Uploads one stream to several buckets under one key, once.

    Afterwards each region is in ``stored`` or in ``failures``, unless ``upload`` raised. A stored
    object counts as a success only after ``confirm_upload``. Uploads that failed go to *cleanup*.
    A *shared* key is that of a committed archive, so its object is never deleted.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[Bucket],
        object_key: str,
        cleanup: UploadCleanup,
        shared: bool = False,
        max_lag: timedelta = MAX_LAG,
    ) -> None:
        self._buckets = buckets
        self._object_key = object_key
        self._cleanup = cleanup
        self._shared = shared
        self._max_lag_s = max_lag.total_seconds()
        self._uploads: list[_RegionUpload] = []
        self._sent_bytes = 0

    @property
    def stored(self) -> tuple[Region, ...]:
        return tuple(upload.region for upload in self._uploads if upload.stored)

    @property
    def failures(self) -> dict[Region, ArchiverError]:
        return {upload.region: upload.failure for upload in self._uploads if upload.failure}

    @property
    def uncertain(self) -> tuple[Region, ...]:
        """Regions that failed after the last chunk. They may have the object nevertheless."""
        return tuple(
            upload.region
            for upload in self._uploads
            if upload.all_sent and upload.task.done() and not upload.stored
        )

    async def upload(self, chunks: AsyncIterable[bytes]) -> None:
        """Send *chunks* until at least one region has stored them and the others have or failed.

        Raises:
            StorageUnavailable: Every region failed.
            whatever *chunks* raises: Every upload was aborted.
        """
        self._uploads = [
            _RegionUpload(bucket=bucket, object_key=self._object_key) for bucket in self._buckets
        ]
        for upload in self._uploads:
            self._cleanup.follow(upload.bucket, self._object_key, upload.task)
        try:
            await self._send(chunks)
        except BaseException:
            for region in self.stored:
                _count_upload(region, "aborted")
            if tasks := self._clean_up(self._uploads, delete_object=not self._shared):
                await asyncio.wait(tasks, timeout=self._cleanup.build_wait_s)
            raise
        failed = [upload for upload in self._uploads if not upload.stored]
        self._clean_up(failed, delete_object=False)

    async def _send(self, chunks: AsyncIterable[bytes]) -> None:
        async with aclosing(_coalesced(chunks)) as coalesced:
            async for chunk in coalesced:
                self._sent_bytes += len(chunk)
                await self._step(_RegionUpload.write, chunk)
        await self._step(_RegionUpload.write, None)
        await self._step(_RegionUpload.wait)

    def _clean_up(
        self, uploads: Sequence[_RegionUpload], *, delete_object: bool
    ) -> list[asyncio.Task[None]]:
        for upload in uploads:
            upload.abandon()
        return [
            self._cleanup.start(
                upload.bucket, self._object_key, upload.task, delete_object=delete_object
            )
            for upload in uploads
        ]

    async def _step(
        self, step: Callable[..., Coroutine[Any, Any, bool]], *args: bytes | None
    ) -> None:
        """Run *step* for every active region, and abandon regions that lag too far behind."""
        tasks = {
            asyncio.create_task(step(upload, *args)): upload
            for upload in self._uploads
            if upload.failure is None
        }
        try:
            late = await self._wait_for_others(set(tasks))
        finally:
            for task in tasks:
                task.cancel()
        for task in late:
            region = tasks[task].region
            tasks[task].abandon(StorageUnavailable(f"{region} kept the other regions waiting"))
        if len(self.failures) == len(self._uploads):
            first = next(iter(self.failures.values()))
            raise StorageUnavailable("no region took the archive") from first

    @property
    def _allowed_lag_s(self) -> float:
        """Seconds that the others wait for a region, depending on how much it may have to send."""
        return min(self._max_lag_s, MIN_LAG.total_seconds() + self._sent_bytes / (1 << 20))

    async def _wait_for_others(self, steps: set[asyncio.Task[bool]]) -> set[asyncio.Task[bool]]:
        """Wait until one step succeeds, then a while for each other; return the late ones."""
        timeout_s: float | None = None
        while steps:
            done, steps = await asyncio.wait(
                steps, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            if any(task.result() for task in done):
                timeout_s = self._allowed_lag_s
        return steps


async def confirm_upload(bucket: Bucket, object_key: str, size_bytes: int) -> None:
    """Return if *bucket* shows a stored object with its full size; count the upload's outcome."""
    outcome = "aborted"
    try:
        await bucket.require_object(object_key, size_bytes)
        outcome = "succeeded"
    except StorageUnavailable:
        outcome = "failed"
        raise
    finally:
        _count_upload(bucket.region, outcome)


def _count_upload(region: Region, outcome: str) -> None:
    METRICS.uploads.labels(region=region, outcome=outcome).inc()


async def _coalesced(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield *chunks* joined to at least CHUNK_BYTES, except for the last."""
    held: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        held.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= CHUNK_BYTES:
            yield b"".join(held)
            held, size_bytes = [], 0
    if held:
        yield b"".join(held)
