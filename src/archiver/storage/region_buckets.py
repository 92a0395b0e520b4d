"""The buckets of all regions, queried concurrently, without waiting for a silent one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.storage import StoredState
from archiver.runtime.notifications import Subscribers
from archiver.storage.bucket import Bucket
from archiver.storage.s3_errors import TIMEOUT
from archiver.storage.stored_state import evaluate

T = TypeVar("T")


PerRegion: TypeAlias = dict[Region, T | ArchiverError]

PATIENCE = timedelta(seconds=1.5)
"""Wait for the remaining regions once one has answered. A new TLS connection to the other side of
the world takes a second."""

SUSPECT_FOR = timedelta(seconds=10)
"""How long a region that was silent gets only SUSPECT_PATIENCE. A build sends several queries."""

SUSPECT_PATIENCE = timedelta(seconds=0.2)


class RegionQueries:
    """Runs queries and remembers which regions were silent lately.

    A region that answers is trusted again at once. ``answers`` is called with the answer of each
    region, None if it has worked. A region that is only late has no answer.
    """

    def __init__(self) -> None:
        self.answers: Subscribers[[Region, StorageUnavailable | None]] = Subscribers()
        self._suspect_until: dict[Region, float] = {}

    async def gather_answers(
        self, queries: Mapping[Region, Coroutine[Any, Any, T]]
    ) -> PerRegion[T]:
        """Return each region's result, or its error.

        As long as no region has succeeded, every region keeps its full timeout.
        """
        tasks = {region: asyncio.create_task(outcome(query)) for region, query in queries.items()}
        try:
            await self._wait(tasks)
            return {
                region: self._result(region, task) if task.done() else self._suspect(region)
                for region, task in tasks.items()
            }
        finally:
            for task in tasks.values():
                task.cancel()

    async def _wait(self, tasks: Mapping[Region, asyncio.Task[T | ArchiverError]]) -> None:
        await _first_success(tasks.values())
        trusted = [task for region, task in tasks.items() if not self._is_suspect(region)]
        for group, patience in ((trusted, PATIENCE), (tasks.values(), SUSPECT_PATIENCE)):
            if pending := [task for task in group if not task.done()]:
                await asyncio.wait(pending, timeout=patience.total_seconds())

    def _is_suspect(self, region: Region) -> bool:
        return time.monotonic() < self._suspect_until.get(region, 0.0)

    def _result(self, region: Region, task: asyncio.Task[T | ArchiverError]) -> T | ArchiverError:
        result = task.result()
        if not isinstance(result, ArchiverError):
            self._suspect_until.pop(region, None)
            self.answers.notify(region, None)
        elif isinstance(result, StorageUnavailable):
            self.answers.notify(region, result)
        return result

    def _suspect(self, region: Region) -> StorageUnavailable:
        """Suspect *region*. A suspicion that is renewed by every query would never end."""
        if not self._is_suspect(region):
            self._suspect_until[region] = time.monotonic() + SUSPECT_FOR.total_seconds()
        return StorageUnavailable(
            f"{region} does not answer while other regions do", s3_code=TIMEOUT
        )


async def _first_success(tasks: Iterable[asyncio.Task[T | ArchiverError]]) -> None:
    """Return when one of *tasks* succeeds, or when all are done."""
    pending = set(tasks)
    succeeded = False
    while pending and not succeeded:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        succeeded = not all(isinstance(task.result(), ArchiverError) for task in done)


async def outcome(work: Awaitable[T]) -> T | ArchiverError:
    """Return the result of *work*, or the ArchiverError that it raises."""
    try:
        return await work
    except ArchiverError as exc:
        return exc


def failures_of(answers: Mapping[Region, object]) -> dict[Region, StorageUnavailable]:
    """Return the errors among the regions' *answers*."""
    return {r: answer for r, answer in answers.items() if isinstance(answer, StorageUnavailable)}


class RegionBuckets:
    """One bucket per region, in the configured order."""

    def __init__(self, *, buckets: Sequence[Bucket]) -> None:
        self._buckets = {bucket.region: bucket for bucket in buckets}
        self._queries = RegionQueries()
        self.answers = self._queries.answers
        self.regions = tuple(self._buckets)

    def bucket(self, region: Region) -> Bucket:
        try:
            return self._buckets[region]
        except KeyError:
            raise StorageUnavailable(f"region {region} is not configured") from None

    async def find(self, archive: Archive) -> StoredState:
        return evaluate(archive, await self.query_patiently(lambda each: each.find_copy(archive)))

    async def query_patiently(
        self, query: Callable[[Bucket], Coroutine[Any, Any, T]]
    ) -> PerRegion[T]:
        """Query all regions, without waiting for one that is silent while others answer."""
        return await self._queries.gather_answers(
            {region: query(bucket) for region, bucket in self._buckets.items()}
        )

    async def check_writable(self) -> dict[Region, StorageUnavailable | None]:
        answers = await self.query_patiently(lambda bucket: bucket.require_writable())
        return {
            region: answer if isinstance(answer, StorageUnavailable) else None
            for region, answer in answers.items()
        }

    async def query_all(
        self, regions: Iterable[Region], query: Callable[[Bucket], Coroutine[Any, Any, T]]
    ) -> PerRegion[T]:
        """Query *regions* concurrently, wait for all of them, and return results or errors."""
        regions = tuple(regions)
        answers = await asyncio.gather(*(outcome(query(self._buckets[r])) for r in regions))
        return dict(zip(regions, answers, strict=True))

    async def delete_object(self, object_key: str, regions: Iterable[Region]) -> None:
        """Delete an object that no manifest names. A region that fails only wastes space."""
        await self.query_all(regions, lambda bucket: bucket.delete_object(object_key))
