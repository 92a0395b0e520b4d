"""What ``ports.Storage`` promises: of the fake, of S3 as it should be, and of S3 as it may be."""

import asyncio
import hashlib
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

import pytest

from archiver.errors import (
    BytesChanged,
    CorruptArchive,
    EngineUnavailable,
    LeaseLost,
    SourceTimeout,
    StorageUnavailable,
)
from archiver.model import Archive, Copies, Node, Region, Verified
from archiver.ports import Found, Storage
from archiver.sealing import seal
from archiver.storage.regions import open_regions
from archiver.testing import MemoryStorage
from tests.parts.s3 import REGIONS, Home, S3Server
from tests.parts.sink import Fault, Sink, sink

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


class Stand(Protocol):
    """A storage of two regions, and the means to look behind and to disturb it."""

    def open(self) -> AbstractAsyncContextManager[Storage]: ...

    def take_down(self, *regions: Region) -> None: ...

    def blind(self, *regions: Region) -> None:
        """Have them give their manifests, but not say whether they have an object."""

    def fill(self, *regions: Region) -> None:
        """Have them take nothing more."""

    def bring_up(self) -> None: ...

    def objects(self, archive: Archive) -> dict[Region, list[str]]:
        """Return the keys under which the archive's bytes lie, committed or not."""

    def damage(self, region: Region, object_key: str) -> None:
        """Put other bytes in the place of those that are there, as many of them."""

    def delete(self, region: Region, object_key: str) -> None:
        """Delete an object, as an operator does by hand."""

    def download(self, url: str) -> bytes:
        """Return what a client gets. Raises PermissionError when it is refused."""


class MemoryStand:
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
        return self.storage.download(url)


class S3Stand:
    """Two buckets of a real server, each behind a sink that can forbid everything."""

    def __init__(self, *, home: Home, sinks: dict[Region, Sink]) -> None:
        self.home = home
        self.sinks = sinks

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Storage]:
        buckets = [
            self.home.bucket(region, endpoint=self.sinks[region].endpoint)
            for region in self.home.regions
        ]
        async with open_regions(buckets) as regions:
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
def s3_stand(home: Home) -> Iterator[S3Stand]:
    with ExitStack() as stack:
        sinks = {region: stack.enter_context(sink(home.server.endpoint)) for region in home.regions}
        yield S3Stand(home=home, sinks=sinks)


@pytest.fixture(scope="module")
def weed_home(weed: S3Server) -> Home:
    return weed.make_home()


@pytest.fixture(scope="module")
def rclone_home(rclone: S3Server) -> Home:
    return rclone.make_home()


def use(stand: Stand, scenario: Callable[[Storage], Awaitable[T]]) -> T:
    """Run *scenario* with the storage of *stand*, in a loop of its own."""

    async def run() -> T:
        async with stand.open() as storage:
            return await scenario(storage)

    return asyncio.run(run())


def an_archive(*, repo: str = "projects/ash", subdir: str = "") -> Archive:
    node = Node(secrets.token_hex(20))
    return Archive(source="hgmo", repo=repo, node=node, subdir=subdir, suffix="zip")


async def stream(data: bytes, failure: Exception | None = None) -> AsyncGenerator[bytes, None]:
    """Yield *data* in pieces; then fail, if there is something to fail with."""
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]
    if failure:
        raise failure


def damaged(data: bytes) -> bytes:
    return b"?" * len(data)


def verified(data: bytes) -> Verified:
    return seal(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), root="ash-012345")


async def kept() -> None:
    """Hold a lease that nobody takes away."""


async def taken() -> None:
    """Hold a lease that went over to somebody else."""
    raise LeaseLost("another worker has the task")


async def listed(
    storage: Storage, source: str | None = None, *, region: Region | None = None
) -> list[Archive]:
    return [archive async for archive in storage.archives(source, region=region)]


async def store(
    storage: Storage, archive: Archive, data: bytes = DATA, *, attempt: str = "a1"
) -> Copies:
    """Upload and commit, as ``service.build`` does."""
    upload = await storage.upload(archive, stream(data), attempt=attempt)
    return await storage.commit(archive, upload, verified(data), hold=kept, source_url=SOURCE_URL)


async def put_back(storage: Storage, archive: Archive, lost: Found, data: bytes = DATA) -> Copies:
    """Upload and commit *data* as what was promised, where the regions answered."""
    upload = await storage.upload(
        archive, stream(data), attempt="a2", avoid=lost.unreachable, promised=lost.promised
    )
    return await storage.commit(archive, upload, verified(data), hold=kept, source_url=SOURCE_URL)


class StorageContract:
    def test_an_archive_is_found_once_it_is_committed_and_not_before(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            assert (await storage.find(archive)).copies is None
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert (await storage.find(archive)).copies is None
            copies = await storage.commit(
                archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
            )
            assert (await storage.find(archive)).copies == copies
            assert copies.regions == storage.regions == REGIONS

        use(stand, scenario)

    def test_a_manifest_says_what_was_verified_and_where_it_came_from(self, stand: Stand) -> None:
        archive = an_archive(subdir="testing")
        manifest = use(stand, lambda storage: store(storage, archive)).manifest
        assert manifest.key == archive.key
        assert manifest.node == archive.node
        assert (manifest.sha256, manifest.size_bytes) == (
            hashlib.sha256(DATA).hexdigest(),
            len(DATA),
        )
        assert (manifest.root, manifest.source_url) == ("ash-012345", SOURCE_URL)
        assert manifest.created_at.tzinfo is not None
        assert stand.objects(archive) == {region: [manifest.object_key] for region in REGIONS}
        assert manifest.object_key.endswith(f"/{archive.file_name}")

    def test_the_first_manifest_wins_and_the_later_bytes_are_forgotten(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            later = await storage.upload(archive, stream(b"later"), attempt="a2")
            first = await store(storage, archive, attempt="a1")
            assert first == await storage.commit(
                archive, later, verified(b"later"), hold=kept, source_url=SOURCE_URL
            )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(stand, scenario).manifest
        assert stand.objects(archive) == {region: [first.object_key] for region in REGIONS}

    def test_attempts_at_one_archive_do_not_overwrite_each_other(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive, attempt="a1")
            await storage.upload(archive, stream(b"other"), attempt="a2")
            return storage.presign(copies, WEST, method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (0, 1, LARGE))
    def test_a_presigned_url_gives_the_very_bytes(self, stand: Stand, size_bytes: int) -> None:
        data = secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> list[str]:
            copies = await store(storage, an_archive(), data)
            return [storage.presign(copies, region, method="GET") for region in REGIONS]

        for url in use(stand, scenario):
            assert stand.download(url) == data

    def test_a_url_for_another_method_or_with_another_signature_is_refused(
        self, stand: Stand
    ) -> None:
        async def scenario(storage: Storage) -> tuple[str, str]:
            copies = await store(storage, an_archive())
            return (
                storage.presign(copies, EAST, method="HEAD"),
                storage.presign(copies, EAST, method="GET"),
            )

        for_head, for_get = use(stand, scenario)
        assert stand.download(for_get) == DATA
        flipped = for_get[:-1] + ("0" if for_get[-1] != "0" else "1")
        for url in (for_head, flipped):
            with pytest.raises(PermissionError):
                stand.download(url)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_places_like_any_other(self, stand: Stand, name: str) -> None:
        archive, other = an_archive(subdir=name), an_archive(repo=name)

        async def scenario(storage: Storage) -> str:
            copies = await store(storage, archive)
            assert (await storage.find(archive)).copies == copies
            assert (await storage.find(other)).copies is None
            return storage.presign(await store(storage, other, b"other"), EAST, method="GET")

        assert stand.download(use(stand, scenario)) == b"other"

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_stream_that_fails_leaves_nothing_and_says_why(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, failure = an_archive(), SourceTimeout("the host fell silent")

        async def scenario(storage: Storage) -> None:
            with pytest.raises(SourceTimeout) as raised:
                await storage.upload(an_archive(), stream(bytes(size_bytes), failure), attempt="a1")
            assert raised.value is failure

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_a_discarded_upload_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            await storage.discard(upload)
            await storage.discard(upload)

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_lost_the_lease_commits_nothing_and_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    archive, upload, verified(DATA), hold=taken, source_url=SOURCE_URL
                )
            assert (await storage.find(archive)).copies is None

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_lost_the_lease_takes_nothing_from_who_has_it(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> Copies:
            late = await storage.upload(archive, stream(b"late"), attempt="a1")
            first = await store(storage, archive, attempt="a2")
            with pytest.raises(LeaseLost):
                await storage.commit(
                    archive, late, verified(b"late"), hold=taken, source_url=SOURCE_URL
                )
            assert (await storage.find(archive)).copies == first
            return first

        first = use(stand, scenario).manifest
        assert stand.objects(archive) == {region: [first.object_key] for region in REGIONS}

    def test_who_is_cancelled_before_a_manifest_is_written_leaves_nothing(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            asked = asyncio.Event()

            async def endless() -> None:
                asked.set()
                await asyncio.Event().wait()

            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            committing = asyncio.create_task(
                storage.commit(archive, upload, verified(DATA), hold=endless, source_url=SOURCE_URL)
            )
            await asked.wait()
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert (await storage.find(archive)).copies is None

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    def test_who_cannot_prove_the_lease_leaves_nothing(self, stand: Stand) -> None:
        archive = an_archive()

        async def silent() -> None:
            raise EngineUnavailable("it does not answer")

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            with pytest.raises(EngineUnavailable):
                await storage.commit(
                    archive, upload, verified(DATA), hold=silent, source_url=SOURCE_URL
                )

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    @pytest.mark.parametrize("region", REGIONS)
    def test_a_region_that_is_out_is_left_behind(self, stand: Stand, region: Region) -> None:
        archive = an_archive()
        rest = tuple(other for other in REGIONS if other != region)
        stand.take_down(region)

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            assert upload.regions == rest
            assert isinstance(upload.failures[region], StorageUnavailable)
            copies = await storage.commit(
                archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
            )
            assert copies.regions == rest
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, (region,))

        use(stand, scenario)

    @pytest.mark.parametrize("region", REGIONS)
    def test_a_region_that_goes_out_before_the_commit_is_left_behind(
        self, stand: Stand, region: Region
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            stand.take_down(region)
            copies = await storage.commit(
                archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
            )
            assert copies.regions == tuple(other for other in REGIONS if other != region)

        use(stand, scenario)

    def test_a_region_to_avoid_is_not_tried_unless_there_is_no_other(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            some = await storage.upload(archive, stream(DATA), attempt="a1", avoid=REGIONS[:1])
            assert (some.regions, dict(some.failures)) == (REGIONS[1:], {})
            every = await storage.upload(archive, stream(DATA), attempt="a2", avoid=REGIONS)
            assert every.regions == REGIONS

        use(stand, scenario)

    def test_without_a_region_nothing_is_stored(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            upload = await storage.upload(archive, stream(DATA), attempt="a1")
            stand.take_down(*REGIONS)
            with pytest.raises(StorageUnavailable):
                await storage.upload(archive, stream(DATA), attempt="a2")
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
                )
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (None, REGIONS)

        use(stand, scenario)

    def test_each_region_is_asked_whether_it_answers(self, stand: Stand) -> None:
        async def scenario(storage: Storage) -> None:
            assert await storage.check() == {EAST: None, WEST: None}
            stand.take_down(WEST)
            answers = await storage.check()
            assert answers[EAST] is None
            assert isinstance(answers[WEST], StorageUnavailable)

        use(stand, scenario)

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_region_that_lacks_an_archive_gets_it_from_another(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            stand.take_down(EAST)
            copies = await store(storage, archive, data)
            stand.bring_up()
            await storage.copy(archive, copies, EAST)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=copies.manifest, regions=REGIONS)
            return storage.presign(found, EAST, method="GET")

        assert stand.download(use(stand, scenario)) == data

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_a_damaged_copy_is_not_copied(self, stand: Stand, size_bytes: int) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(EAST)
            copies = await store(storage, archive, bytes(size_bytes))
            stand.bring_up()
            stand.damage(WEST, copies.manifest.object_key)
            with pytest.raises(CorruptArchive):
                await storage.copy(archive, copies, EAST)
            assert (await storage.find(archive)).copies == copies

        use(stand, scenario)
        assert stand.objects(archive)[EAST] == []

    @pytest.mark.parametrize("lost", REGIONS)
    def test_a_manifest_without_its_object_is_no_copy_until_it_has_one_again(
        self, stand: Stand, lost: Region
    ) -> None:
        archive = an_archive()
        kept = tuple(region for region in REGIONS if region != lost)

        async def scenario(storage: Storage) -> str:
            both = await store(storage, archive)
            stand.delete(lost, both.manifest.object_key)
            found = (await storage.find(archive)).copies
            assert found == Copies(manifest=both.manifest, regions=kept)
            await storage.copy(archive, found, lost)
            assert (await storage.find(archive)).copies == both
            return storage.presign(both, lost, method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("size_bytes", (100, LARGE))
    def test_bytes_that_every_region_lost_come_back_under_their_name_or_not_at_all(
        self, stand: Stand, size_bytes: int
    ) -> None:
        archive, data = an_archive(), secrets.token_bytes(size_bytes)

        async def scenario(storage: Storage) -> str:
            first = await store(storage, archive, data)
            for region in REGIONS:
                stand.delete(region, first.manifest.object_key)
            lost = await storage.find(archive)
            assert (lost.copies, lost.promised) == (None, first.manifest)
            with pytest.raises(BytesChanged):
                await storage.upload(
                    archive, stream(damaged(data)), attempt="a2", promised=lost.promised
                )
            assert stand.objects(archive) == NOTHING
            upload = await storage.upload(
                archive, stream(data), attempt="a3", promised=lost.promised
            )
            await storage.discard(upload)
            again = await storage.commit(
                archive, upload, verified(data), hold=kept, source_url=SOURCE_URL
            )
            assert again == first == (await storage.find(archive)).copies
            return storage.presign(again, WEST, method="GET")

        assert stand.download(use(stand, scenario)) == data

    @pytest.mark.parametrize("bare", REGIONS)
    @pytest.mark.parametrize("trouble", ("none", "bare region full", "bare region blind"))
    def test_bytes_that_came_back_count_wherever_they_are_taken(
        self, stand: Stand, bare: Region, trouble: str
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != bare)

        async def scenario(storage: Storage) -> str:
            stand.take_down(*rest)
            first = await store(storage, archive)
            stand.bring_up()
            stand.delete(bare, first.manifest.object_key)
            if trouble == "bare region full":
                stand.fill(bare)
            if trouble == "bare region blind":
                stand.blind(bare)
            lost = await storage.find(archive)
            assert (lost.copies, lost.promised) == (None, first.manifest)
            again = await put_back(storage, archive, lost)
            regions = REGIONS if trouble == "none" else rest
            assert again == Copies(manifest=first.manifest, regions=regions)
            assert (await storage.find(archive)).copies == again
            return storage.presign(again, rest[0], method="GET")

        assert stand.download(use(stand, scenario)) == DATA

    @pytest.mark.parametrize("bare", REGIONS)
    @pytest.mark.parametrize(
        ("trouble", "has"),
        (
            ("out", "nothing"),
            ("out", "a copy"),
            ("blind", "nothing"),
            ("blind", "a copy"),
            ("full", "nothing"),
        ),
    )
    def test_a_promise_is_kept_while_the_other_region_is_in_trouble(
        self, stand: Stand, bare: Region, trouble: str, has: str
    ) -> None:
        archive = an_archive()
        (other,) = (region for region in REGIONS if region != bare)
        disturb = {"out": stand.take_down, "blind": stand.blind, "full": stand.fill}[trouble]

        async def scenario(storage: Storage) -> str:
            if has == "nothing":
                stand.take_down(other)
            first = (await store(storage, archive)).manifest
            stand.bring_up()
            stand.delete(bare, first.object_key)
            disturb(other)
            lost = await storage.find(archive)
            assert (lost.copies, lost.promised) == (None, first)
            assert lost.unreachable == ((other,) if trouble == "out" or has == "a copy" else ())
            with pytest.raises(BytesChanged):
                await put_back(storage, archive, lost, damaged(DATA))
            with pytest.raises(StorageUnavailable):
                await store(storage, archive, b"new", attempt="a3")
            assert stand.objects(archive)[bare] == []
            again = await put_back(storage, archive, lost)
            assert again == Copies(manifest=first, regions=(bare,))
            stand.bring_up()
            regions = REGIONS if has == "a copy" else (bare,)
            assert (await storage.find(archive)).copies == replace(again, regions=regions)
            return storage.presign(again, bare, method="GET")

        assert stand.download(use(stand, scenario)) == DATA
        assert not any("/a3/" in key for keys in stand.objects(archive).values() for key in keys)

    def test_bytes_that_came_back_to_a_region_of_which_nothing_is_known_are_no_copy(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(WEST)
            first = await store(storage, archive)
            stand.bring_up()
            stand.delete(EAST, first.manifest.object_key)
            lost = await storage.find(archive)
            upload = await storage.upload(
                archive, stream(DATA), attempt="a2", promised=lost.promised
            )
            stand.take_down(EAST)
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
                )
            stand.bring_up()
            assert (await storage.find(archive)).copies == Copies(
                manifest=first.manifest, regions=(EAST,)
            )

        use(stand, scenario)

    def test_nothing_is_committed_over_a_promise_that_is_seen_late(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            first = await store(storage, archive)
            for region in REGIONS:
                stand.delete(region, first.manifest.object_key)
            upload = await storage.upload(archive, stream(DATA), attempt="a2")
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    archive, upload, verified(DATA), hold=kept, source_url=SOURCE_URL
                )
            assert (await storage.find(archive)).promised == first.manifest

        use(stand, scenario)
        assert stand.objects(archive) == NOTHING

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_region_that_does_not_show_its_object_has_no_copy_and_is_not_certain(
        self, stand: Stand, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            both = await store(storage, archive)
            stand.blind(blind)
            found = await storage.find(archive)
            assert found.copies == Copies(manifest=both.manifest, regions=rest)
            assert (found.unreachable, found.promised) == ((blind,), None)

        use(stand, scenario)

    @pytest.mark.parametrize("blind", REGIONS)
    def test_a_manifest_is_a_promise_although_its_region_does_not_show_the_object(
        self, stand: Stand, blind: Region
    ) -> None:
        archive = an_archive()
        rest = tuple(region for region in REGIONS if region != blind)

        async def scenario(storage: Storage) -> None:
            stand.take_down(*rest)
            first = await store(storage, archive)
            stand.bring_up()
            stand.blind(blind)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (None, (blind,))
            assert found.promised == first.manifest
            upload = await storage.upload(archive, stream(b"other"), attempt="a2", avoid=(blind,))
            with pytest.raises(StorageUnavailable):
                await storage.commit(
                    archive, upload, verified(b"other"), hold=kept, source_url=SOURCE_URL
                )
            stand.bring_up()
            assert (await storage.find(archive)).copies == first

        use(stand, scenario)
        assert stand.objects(archive)[rest[0]] == []

    def test_the_first_region_is_right_although_it_does_not_show_its_object(
        self, stand: Stand
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(WEST)
            first = await store(storage, archive)
            stand.bring_up()
            stand.take_down(EAST)
            await store(storage, archive, b"other", attempt="a2")
            stand.bring_up()
            stand.blind(EAST)
            found = await storage.find(archive)
            assert (found.copies, found.promised) == (None, first.manifest)

        use(stand, scenario)

    def test_a_region_that_shows_no_object_takes_no_manifest(self, stand: Stand) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.blind(EAST)
            copies = await store(storage, archive)
            assert copies.regions == (WEST,)
            found = await storage.find(archive)
            assert (found.copies, found.unreachable) == (copies, ())

        use(stand, scenario)

    @pytest.mark.parametrize("out", REGIONS)
    def test_a_copy_needs_both_regions(self, stand: Stand, out: Region) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            stand.take_down(EAST)
            copies = await store(storage, archive)
            stand.bring_up()
            stand.take_down(out)
            with pytest.raises(StorageUnavailable):
                await storage.copy(archive, copies, EAST)

        use(stand, scenario)

    def test_what_is_committed_is_listed_and_nothing_else(self, stand: Stand) -> None:
        source, other = f"s{secrets.token_hex(4)}", f"s{secrets.token_hex(4)}"
        mine = {replace(an_archive(subdir=name), source=source) for name in ODD_NAMES}
        theirs = replace(an_archive(), source=other)

        async def scenario(storage: Storage) -> None:
            assert await listed(storage, source) == []
            for archive in (*mine, theirs):
                await store(storage, archive)
            await storage.upload(replace(an_archive(), source=source), stream(DATA), attempt="a1")
            found = await listed(storage, source)
            assert len(found) == len(mine)
            assert set(found) == mine
            assert {*mine, theirs} <= set(await listed(storage))

        use(stand, scenario)

    def test_the_first_region_that_answers_is_the_one_that_is_listed(self, stand: Stand) -> None:
        both, eastern, western = an_archive(), an_archive(), an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, both)
            stand.take_down(WEST)
            await store(storage, eastern)
            assert {both, eastern} <= set(await listed(storage))
            stand.bring_up()
            stand.take_down(EAST)
            await store(storage, western)
            found = await listed(storage)
            assert {both, western} <= set(found)
            assert eastern not in found
            assert set(await listed(storage, western.source, region=WEST)) >= {both, western}
            with pytest.raises(StorageUnavailable):
                await listed(storage, region=EAST)
            stand.take_down(WEST)
            with pytest.raises(StorageUnavailable):
                await listed(storage)

        use(stand, scenario)


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def stand(self) -> Stand:
        return MemoryStand()


class TestSeaweedFS(StorageContract):
    @pytest.fixture
    def stand(self, weed_home: Home) -> Iterator[Stand]:
        with s3_stand(weed_home) as stand:
            yield stand


class TestRclone(StorageContract):
    @pytest.fixture
    def stand(self, rclone_home: Home) -> Iterator[Stand]:
        with s3_stand(rclone_home) as stand:
            yield stand
