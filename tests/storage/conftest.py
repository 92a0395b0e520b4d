"""Fixtures for storage tests: two regions, each behind a proxy that can misbehave."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import pytest

from archiver.model import Archive, Copies, Node, Region, Verified
from archiver.ports.bucket_contents import UnfinishedUpload
from archiver.ports.storage import Commit, Upload
from archiver.sealing import seal
from archiver.storage.bucket import Bucket
from archiver.storage.fan_out import MAX_LAG
from archiver.storage.regional_storage import OBSTORE_EXIT_S, RegionalStorage
from archiver.storage.upload_cleanup import GRACE
from tests.parts.s3 import REGIONS, Home
from tests.parts.s3_fault_proxy import Misbehave, S3FaultProxy, sink

T = TypeVar("T")
EAST, WEST = REGIONS
LARGE = 10_000_000
"""More than one part of a multipart upload."""

SOURCE_URL = "https://hg.example/ash"

NOTHING: dict[Region, list[str]] = {EAST: [], WEST: []}


async def unfinished(bucket: Bucket) -> list[UnfinishedUpload]:
    """Return the unfinished uploads of archives in *bucket*."""
    return [upload async for upload in bucket.listings.iter_uploads(None)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoRegions:
    """Two regions, and the proxies in front of them."""

    home: Home
    sinks: Mapping[Region, S3FaultProxy]

    def use(
        self,
        scenario: Callable[[RegionalStorage], Awaitable[T]],
        *,
        regions: tuple[Region, ...] = REGIONS,
        max_lag: timedelta = MAX_LAG,
        grace: timedelta = GRACE,
    ) -> T:
        """Run *scenario* in a new event loop, with *regions* behind their proxies."""
        buckets = [
            self.home.bucket(region, endpoint=self.sinks[region].endpoint) for region in regions
        ]

        async def run() -> T:
            try:
                return await scenario(
                    RegionalStorage(buckets=buckets, max_lag=max_lag, grace=grace)
                )
            finally:
                await asyncio.sleep(OBSTORE_EXIT_S)

        return asyncio.run(run())


@pytest.fixture
def two_regions(home: Home) -> Iterator[TwoRegions]:
    with ExitStack() as stack:
        endpoint = home.server.endpoint
        yield TwoRegions(
            home=home, sinks={region: stack.enter_context(sink(endpoint)) for region in REGIONS}
        )


def shorten(two_regions: TwoRegions) -> Misbehave:
    """Truncate objects before HEAD requests."""

    def misbehave(method: str, target: str) -> None:
        if method == "HEAD":
            two_regions.home.server.request("PUT", target, body=b"few")

    return misbehave


def an_archive(*, suffix: str = "zip") -> Archive:
    node = Node(secrets.token_hex(20))
    return Archive(source="hgmo", repo="projects/ash", node=node, subdir="", suffix=suffix)


async def stream(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]
        await asyncio.sleep(0)


def verified(data: bytes) -> Verified:
    return seal(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), root="ash-012345")


def commit_of(archive: Archive, upload: Upload, data: bytes) -> Commit:
    """Return a commit of *upload*, which is assumed to hold *data*."""
    return Commit(archive=archive, upload=upload, verified=verified(data), source_url=SOURCE_URL)


async def lease_held() -> None:
    """Prove a lease that is still held."""


async def store(
    storage: RegionalStorage, archive: Archive, data: bytes = b"data", *, attempt: str = "a1"
) -> Copies:
    upload = await storage.upload(archive, stream(data), attempt=attempt)
    return await storage.commit(
        commit_of(archive, upload, data),
        prove_lease=lease_held,
    )
