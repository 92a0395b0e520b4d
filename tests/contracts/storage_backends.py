"""Storages under contract, each with two regions, and helpers of the contract's tests."""

import asyncio
import hashlib
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

import pytest

from archiver.errors import LeaseLost
from archiver.model import Archive, Copies, Node, Region, Verified
from archiver.ports.storage import Commit, Storage, StoredState, Upload
from archiver.sealing import seal
from archiver.storage.regional_storage import open_storage
from archiver.testing import MemoryStorage
from tests.parts.s3 import REGIONS, Home
from tests.parts.s3_fault_proxy import Fault, S3FaultProxy, sink

T = TypeVar("T")
EAST, WEST = REGIONS
DATA = b"an archive, as far as a bucket can tell" * 1000
NOTHING: dict[Region, list[str]] = {EAST: [], WEST: []}
LARGE = 9_000_000
"""More than one part of a multipart upload."""

SOURCE_URL = "https://hg.example/projects/ash/archive/0123456789ab.zip"
ODD_NAMES = (
    "a b",
    "a~b",
    "über/日本",
    "a+b",
    'it\'s "so"',
    "a&b=c;d,e$f",
    "(1)!*{2}[3]^|<4>",
    "~20",
)


class Backend(Protocol):
    """A storage with two regions that tests can inspect and disturb."""

    def open(self) -> AbstractAsyncContextManager[Storage]: ...

    def take_down(self, *regions: Region) -> None: ...

    def blind(self, *regions: Region) -> None:
        """Have *regions* return manifests, but no metadata of objects."""

    def fill(self, *regions: Region) -> None:
        """Have *regions* reject writes."""

    def bring_up(self) -> None: ...

    def objects(self, archive: Archive) -> dict[Region, list[str]]:
        """Return the keys of the archive's objects, committed or not."""

    def damage(self, region: Region, object_key: str) -> None:
        """Replace an object by other bytes of the same size."""

    def delete(self, region: Region, object_key: str) -> None:
        """Delete an object, as an operator might."""

    def download(self, url: str) -> bytes:
        """Return a client's download. Raises PermissionError if it is rejected."""


class MemoryBackend:
    def __init__(self) -> None:
        self.storage = MemoryStorage(regions=REGIONS)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Storage]:
        yield self.storage

    def take_down(self, *regions: Region) -> None:
        self.storage.down.update(regions)

    def blind(self, *regions: Region) -> None:
        self.storage.blind.update(regions)

    def fill(self, *regions: Region) -> None:
        self.storage.full.update(regions)

    def bring_up(self) -> None:
        for disturbed in (self.storage.down, self.storage.blind, self.storage.full):
            disturbed.clear()

    def objects(self, archive: Archive) -> dict[Region, list[str]]:
        return {
            region: [key for key in self.storage.objects[region] if archive.key in key]
            for region in REGIONS
        }

    def damage(self, region: Region, object_key: str) -> None:
        self.storage.objects[region][object_key] = damaged(self.storage.objects[region][object_key])

    def delete(self, region: Region, object_key: str) -> None:
        del self.storage.objects[region][object_key]

    def download(self, url: str) -> bytes:
        try:
            return self.storage.download(url)
        except KeyError as exc:
            raise PermissionError("there is no such object") from exc


class S3Backend:
    """Two buckets of a real server, each behind a proxy that can reject requests."""

    def __init__(self, *, home: Home, sinks: dict[Region, S3FaultProxy]) -> None:
        self.home = home
        self.sinks = sinks

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Storage]:
        buckets = [
            self.home.bucket(region, endpoint=self.sinks[region].endpoint)
            for region in self.home.regions
        ]
        async with open_storage(buckets) as regions:
            yield regions

    def take_down(self, *regions: Region) -> None:
        for region in regions:
            self.sinks[region].misbehave = lambda _method, _target: Fault.FORBID

    def blind(self, *regions: Region) -> None:
        for region in regions:
            self.sinks[region].misbehave = lambda method, _target: (
                Fault.FORBID if method == "HEAD" else None
            )

    def fill(self, *regions: Region) -> None:
        for region in regions:
            self.sinks[region].misbehave = lambda method, _target: (
                Fault.FORBID if method in {"PUT", "POST"} else None
            )

    def bring_up(self) -> None:
        for opened in self.sinks.values():
            opened.misbehave = lambda _method, _target: None

    def objects(self, archive: Archive) -> dict[Region, list[str]]:
        assert self.home.unfinished() == NOTHING
        return self.home.keys(f"archives/{archive.key}/")

    def damage(self, region: Region, object_key: str) -> None:
        path = f"/{self.home.names[region]}/{object_key}"
        body = damaged(self.home.read(region, object_key))
        status, _ = self.home.server.request("PUT", path, body=body)
        assert status == 200

    def delete(self, region: Region, object_key: str) -> None:
        path = f"/{self.home.names[region]}/{object_key}"
        status, _ = self.home.server.request("DELETE", path)
        assert status == 204

    def download(self, url: str) -> bytes:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as exc:
            exc.close()
            raise PermissionError(exc.code) from exc


@contextmanager
def s3_backend(home: Home) -> Iterator[S3Backend]:
    with ExitStack() as stack:
        sinks = {region: stack.enter_context(sink(home.server.endpoint)) for region in home.regions}
        yield S3Backend(home=home, sinks=sinks)


def use(backend: Backend, scenario: Callable[[Storage], Awaitable[T]]) -> T:
    """Run *scenario* with the storage of *backend*, in a new event loop."""

    async def run() -> T:
        async with backend.open() as storage:
            return await scenario(storage)

    return asyncio.run(run())


def an_archive(*, repo: str = "projects/ash", subdir: str = "") -> Archive:
    node = Node(secrets.token_hex(20))
    return Archive(source="hgmo", repo=repo, node=node, subdir=subdir, suffix="zip")


async def stream(data: bytes, failure: Exception | None = None) -> AsyncGenerator[bytes, None]:
    """Yield *data* in pieces; then raise *failure*, if given."""
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]
    if failure:
        raise failure


def damaged(data: bytes) -> bytes:
    return b"?" * len(data)


def verified(data: bytes) -> Verified:
    return seal(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        root="ash-012345",
        links_outside=2,
    )


def commit_of(archive: Archive, upload: Upload, data: bytes) -> Commit:
    """Return a commit of *upload*, which is assumed to hold *data*."""
    return Commit(archive=archive, upload=upload, verified=verified(data), source_url=SOURCE_URL)


async def lease_held() -> None:
    """Prove a lease that is still held."""


async def lease_lost() -> None:
    """Prove a lease that another worker has taken over."""
    raise LeaseLost("another worker has the task")


async def listed(
    storage: Storage, source: str | None = None, *, region: Region | None = None
) -> list[Archive]:
    return [archive async for archive in storage.iter_archives(source, region=region)]


async def store(
    storage: Storage, archive: Archive, data: bytes = DATA, *, attempt: str = "a1"
) -> Copies:
    """Upload and commit *data*."""
    upload = await storage.upload(archive, stream(data), attempt=attempt)
    return await storage.commit(
        commit_of(archive, upload, data),
        prove_lease=lease_held,
    )


async def restore(
    storage: Storage, archive: Archive, lost: StoredState, data: bytes = DATA
) -> Copies:
    """Upload and commit *data* as the bytes of the dangling manifest in *lost*."""
    upload = await storage.upload(
        archive, stream(data), attempt="a2", avoid=lost.unreachable, restore=lost.dangling_manifest
    )
    return await storage.commit(
        commit_of(archive, upload, data),
        prove_lease=lease_held,
    )


class InMemory:
    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend()


class InSeaweedFS:
    @pytest.fixture
    def backend(self, weed_home: Home) -> Iterator[Backend]:
        with s3_backend(weed_home) as backend:
            yield backend


class InRclone:
    @pytest.fixture
    def backend(self, rclone_home: Home) -> Iterator[Backend]:
        with s3_backend(rclone_home) as backend:
            yield backend
