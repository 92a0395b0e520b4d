"""One stream into several buckets, none of which may hold up or harm the others.

An upload that is to give up learns so through its own chunks, because only then does obstore abort
it at the server. What becomes of it afterwards is in ``leftovers``.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Region
from archiver.storage.bucket import Bucket
from archiver.storage.upload_cleanup import Leftovers
from archiver.telemetry import METRICS

CHUNK_BYTES = 1 << 20
"""What a chunk at least has: handing one over costs the same whatever its size."""

CHUNKS_AHEAD = 2
"""How far the quickest region may be ahead of the slowest, but for what is under way."""

PATIENCE = timedelta(seconds=30)
"""How long a region may keep another one waiting. With 27 MiB under way, it is then dead, or slower
than 1 MB/s. A region that is alone, or no slower than the others, may take all its time."""

LEAST_PATIENCE = timedelta(seconds=3)
"""The same for an archive of a few bytes, whose copy follows by a repair. What is in between has a
second more for each MiB."""


class _Abandoned(Exception):
    """Ends an upload from within."""


class _Feed:
    """Chunks on their way into one upload: an iterator that owns nothing and needs no closing."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)
        self._abandoned = False

    async def put(self, chunk: bytes | None) -> None:
        """Hand on *chunk*, or None for the end, as soon as there is room."""
        if not self._abandoned:
            await self._queue.put(chunk)

    def abandon(self) -> None:
        """Let go of whoever waits at either end."""
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
        return chunk


class _Branch:
    """One region's upload: running, stored, or given up (for ``failure``, if it was its own)."""

    def __init__(self, *, bucket: Bucket, object_key: str) -> None:
        self.bucket = bucket
        self.region = bucket.region
        self.failure: ArchiverError | None = None
        self.stored = False
        self.ended = False
        self._given_up = False
        self._feed = _Feed()
        self.running = asyncio.create_task(self._put(object_key))

    @property
    def alive(self) -> bool:
        return self.failure is None

    async def write(self, chunk: bytes | None) -> bool:
        """Hand on *chunk*, or None for the end; return whether the region is still with us."""
        self.ended = self.ended or chunk is None
        await self._feed.put(chunk)
        return self.alive

    async def wait(self) -> bool:
        """Return, when the upload is over, whether the region has it."""
        await asyncio.wait([self.running])
        if not self.running.cancelled():
            self.running.result()
        return self.stored

    def abandon(self, failure: ArchiverError | None = None) -> None:
        """Have the upload give up."""
        if not self.running.done():
            self.failure = self.failure or failure
            self._given_up = True
            self._feed.abandon()

    async def _put(self, object_key: str) -> None:
        try:
            size_bytes = await self.bucket.put(object_key, self._feed)
        except ArchiverError as exc:
            self.failure = self.failure or exc
        except _Abandoned:
            pass
        else:
            self.stored = self.failure is None and not self._given_up
            METRICS.upload_bytes.labels(region=self.region).inc(size_bytes)
        finally:
            self._feed.abandon()
            if not self.stored:
                _count(self.region, "failed" if self.failure else "aborted")


class Tee:
    """Sends one stream to several buckets under one key. Runs once.

    Afterwards every region is either in ``stored`` or in ``failures``, unless ``run`` raised. What
    is stored is to be confirmed: only then does it count as a success. What is not goes to
    *leftovers*. A key that is *shared* with other uploads is that of a committed archive.
    """

    def __init__(
        self,
        *,
        buckets: Sequence[Bucket],
        object_key: str,
        leftovers: Leftovers,
        shared: bool = False,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._buckets = buckets
        self._object_key = object_key
        self._leftovers = leftovers
        self._shared = shared
        self._patience_s = patience.total_seconds()
        self._branches: list[_Branch] = []
        self._sent_bytes = 0

    @property
    def stored(self) -> tuple[Region, ...]:
        return tuple(branch.region for branch in self._branches if branch.stored)

    @property
    def failures(self) -> dict[Region, ArchiverError]:
        return {branch.region: branch.failure for branch in self._branches if branch.failure}

    @property
    def uncertain(self) -> tuple[Region, ...]:
        """The regions that have said no at the end of the stream, and may have the object."""
        return tuple(
            branch.region
            for branch in self._branches
            if branch.ended and branch.running.done() and not branch.stored
        )

    async def run(self, chunks: AsyncIterable[bytes]) -> None:
        """Send *chunks* until one region has all of them, and the others have or have failed.

        Raises:
            StorageUnavailable: Every region failed.
            whatever *chunks* raises: Every upload was aborted.
        """
        self._branches = [
            _Branch(bucket=bucket, object_key=self._object_key) for bucket in self._buckets
        ]
        try:
            await self._send(chunks)
        except BaseException:
            for region in self.stored:
                _count(region, "aborted")
            if clearing := self._clear(self._branches, doomed=not self._shared):
                await asyncio.wait(clearing, timeout=self._leftovers.patience_s)
            raise
        failed = [branch for branch in self._branches if not branch.stored]
        self._clear(failed, doomed=False)

    async def _send(self, chunks: AsyncIterable[bytes]) -> None:
        async with aclosing(_coalesced(chunks)) as coalesced:
            async for chunk in coalesced:
                self._sent_bytes += len(chunk)
                await self._each(_Branch.write, chunk)
        await self._each(_Branch.write, None)
        await self._each(_Branch.wait)

    def _clear(self, branches: Iterable[_Branch], *, doomed: bool) -> list[asyncio.Task[None]]:
        clearing = []
        for branch in branches:
            branch.abandon()
            upload = self._leftovers.take(
                branch.bucket, self._object_key, branch.running, doomed=doomed
            )
            clearing.append(upload)
        return clearing

    async def _each(
        self, step: Callable[..., Coroutine[Any, Any, bool]], *args: bytes | None
    ) -> None:
        """Take a step in every region that is left, and leave behind those that are late."""
        steps = {
            asyncio.create_task(step(branch, *args)): branch
            for branch in self._branches
            if branch.alive
        }
        try:
            late = await self._late(set(steps))
        finally:
            for task in steps:
                task.cancel()
        for task in late:
            region = steps[task].region
            steps[task].abandon(StorageUnavailable(f"{region} kept the other regions waiting"))
        if len(self.failures) == len(self._branches):
            first = next(iter(self.failures.values()))
            raise StorageUnavailable("no region took the archive") from first

    @property
    def _enough_s(self) -> float:
        """Return how long the others wait for a region, by what it may have to send yet."""
        return min(self._patience_s, LEAST_PATIENCE.total_seconds() + self._sent_bytes / (1 << 20))

    async def _late(self, steps: set[asyncio.Task[bool]]) -> set[asyncio.Task[bool]]:
        """Wait for one step to succeed, then a while for each of the others; return the late."""
        patience_s: float | None = None
        while steps:
            done, steps = await asyncio.wait(
                steps, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            if any(task.result() for task in done):
                patience_s = self._enough_s
        return steps


async def confirm(bucket: Bucket, object_key: str, size_bytes: int) -> None:
    """Return if *bucket* shows all of an upload, which it has taken; count what came of it.

    Raises:
        StorageUnavailable: It does not.
    """
    outcome = "aborted"
    try:
        await bucket.confirm(object_key, size_bytes)
        outcome = "succeeded"
    except StorageUnavailable:
        outcome = "failed"
        raise
    finally:
        _count(bucket.region, outcome)


def _count(region: Region, outcome: str) -> None:
    METRICS.uploads.labels(region=region, outcome=outcome).inc()


async def _coalesced(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield *chunks* as fewer ones, of at least CHUNK_BYTES but for the last."""
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
