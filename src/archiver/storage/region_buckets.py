"""The buckets of all regions, queried concurrently."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from archiver.errors import StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.storage import StoredState
from archiver.storage.bucket import Bucket
from archiver.storage.region_queries import PerRegion, RegionQueries, outcome
from archiver.storage.stored_state import evaluate

T = TypeVar("T")


class RegionBuckets:
    """One bucket per region, in the configured order."""

    def __init__(self, *, buckets: Sequence[Bucket]) -> None:
        self._buckets = {bucket.region: bucket for bucket in buckets}
        self._queries = RegionQueries()
        self.regions = tuple(self._buckets)

    def bucket(self, region: Region) -> Bucket:
        try:
            return self._buckets[region]
        except KeyError:
            raise StorageUnavailable(f"region {region} is not configured") from None

    async def find(self, archive: Archive) -> StoredState:
        answers = await self._queries.run(
            {region: bucket.find_copy(archive) for region, bucket in self._buckets.items()}
        )
        return evaluate(archive, answers)

    async def check_writable(self) -> dict[Region, StorageUnavailable | None]:
        answers = await self._queries.run(
            {region: bucket.require_writable() for region, bucket in self._buckets.items()}
        )
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
