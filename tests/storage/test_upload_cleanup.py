"""The cleanup of abandoned uploads."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from archiver.errors import NotPackable, StorageUnavailable
from archiver.storage.regional_storage import RegionalStorage
from archiver.storage.upload_cleanup import UploadCleanup
from tests.parts.faulty_host import FaultyHost, Request, Step, serving, sized
from tests.parts.s3 import Home, S3Server
from tests.parts.s3_fault_proxy import Fault
from tests.storage.conftest import (
    EAST,
    LARGE,
    NOTHING,
    WEST,
    TwoRegions,
    an_archive,
    store,
    stream,
    unfinished,
)
from tests.storage.test_bucket import run
from tests.storage.test_fan_out import SHORT, at_parts

MANY_PARTS = 3 * LARGE
"""More than obstore sends at a time: it stops reading until a part is acknowledged."""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.05)


async def wait_until_clean(two_regions: TwoRegions) -> None:
    await until(lambda: two_regions.home.unfinished() == NOTHING)


def thaw(two_regions: TwoRegions) -> None:
    for sink in two_regions.sinks.values():
        sink.misbehave = lambda _method, _target: None


def test_a_region_that_froze_during_an_upload_is_cleaned_up_when_it_answers_again(
    two_regions: TwoRegions,
) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        two_regions.sinks[WEST].misbehave = lambda _method, target: (
            Fault.HANG if "partNumber" in target or "?uploads=&" in target else None
        )
        upload = await storage.upload(an_archive(), stream(bytes(MANY_PARTS)), attempt="a1")
        assert upload.regions == (EAST,)
        assert two_regions.home.unfinished()[WEST]
        thaw(two_regions)
        await wait_until_clean(two_regions)

    two_regions.use(scenario, max_lag=SHORT, grace=SHORT)


@pytest.mark.thorough
def test_a_cancelled_upload_ends_within_seconds_even_if_every_region_is_frozen(
    two_regions: TwoRegions,
) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        stuck = asyncio.Event()

        async def chunks() -> AsyncGenerator[bytes, None]:
            async for chunk in stream(bytes(MANY_PARTS)):
                yield chunk
            stuck.set()
            await asyncio.Event().wait()

        for sink in two_regions.sinks.values():
            sink.misbehave = at_parts(Fault.HANG)
        uploading = asyncio.create_task(storage.upload(an_archive(), chunks(), attempt="a1"))
        while not all(two_regions.home.unfinished().values()):
            await asyncio.sleep(0.02)
        for sink in two_regions.sinks.values():
            sink.misbehave = lambda _method, _target: Fault.HANG
        uploading.cancel()
        async with asyncio.timeout(8):
            with pytest.raises(asyncio.CancelledError):
                await uploading
        assert all(two_regions.home.unfinished().values())
        thaw(two_regions)
        await wait_until_clean(two_regions)

    two_regions.use(scenario, grace=SHORT)
    assert two_regions.home.keys() == NOTHING


@pytest.mark.parametrize("server", ("weed", "rclone"))
def test_uploads_of_killed_processes_are_listed_and_aborted(
    request: pytest.FixtureRequest, server: str
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    home = s3.make_home((EAST,))
    name, bucket = home.names[EAST], home.bucket(EAST)
    keys = [f"archives/{an_archive().key}/a~2B/a+b.zip", "elsewhere/x.zip"]
    for key in keys:
        assert s3.request("POST", f"/{name}/{key}", {"uploads": ""})[0] == 200

    (upload,) = run(lambda: unfinished(bucket))
    assert upload.object_key == keys[0]
    assert sorted(s3.unfinished(name)) == keys
    run(lambda: bucket.abort_upload(upload))
    assert s3.unfinished(name) == keys[1:]
    long_ago, soon = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    run(lambda: bucket.abort_uploads(keys[1], until=long_ago))
    assert s3.unfinished(name) == keys[1:]
    run(lambda: bucket.abort_uploads(keys[1], until=soon))
    assert s3.unfinished(name) == []


def test_a_bucket_that_rejects_the_listing_of_uploads_raises_its_code(
    two_regions: TwoRegions,
) -> None:
    two_regions.sinks[EAST].misbehave = lambda method, _: Fault.FORBID if method == "GET" else None
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    with pytest.raises(StorageUnavailable) as raised:
        run(lambda: bucket.abort_uploads("archives/x", until=datetime.now(UTC)))
    assert raised.value.s3_code == "AccessDenied"


def test_a_copy_that_arrives_before_the_cleanup_stays(two_regions: TwoRegions) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> None:
        two_regions.sinks[WEST].misbehave = lambda _method, _target: Fault.FORBID
        copies = await store(storage, archive)
        asked = len(two_regions.sinks[WEST].requests)
        thaw(two_regions)
        await storage.copy(archive, copies, WEST)
        await until(
            lambda: any("?uploads=&" in t for _, t in two_regions.sinks[WEST].requests[asked:])
        )
        await storage.close()
        found = (await storage.find(archive)).copies
        assert found
        assert found.regions == (EAST, WEST)

    two_regions.use(scenario, grace=SHORT)


def test_a_copy_in_progress_is_not_aborted_by_the_cleanup_of_an_earlier_one(
    two_regions: TwoRegions,
) -> None:
    """Its start may seem to be earlier: servers round the time to seconds, and clocks differ."""
    archive, sink = an_archive(), two_regions.sinks[WEST]
    bucket = two_regions.home.bucket(WEST, endpoint=sink.endpoint)
    cleanup = UploadCleanup(grace=SHORT)

    async def scenario(_storage: RegionalStorage) -> None:
        more = asyncio.Event()

        async def chunks() -> AsyncGenerator[bytes, None]:
            async for chunk in stream(bytes(MANY_PARTS)):
                yield chunk
            await more.wait()

        copy = asyncio.create_task(bucket.put_object(archive.key, chunks()))
        cleanup.follow(bucket, archive.key, copy)
        await until(lambda: two_regions.home.unfinished()[WEST] != [])
        earlier = asyncio.create_task(asyncio.sleep(0))
        cleaning = cleanup.start(bucket, archive.key, earlier, delete_object=False)
        await asyncio.wait([cleaning], timeout=SHORT.total_seconds())
        more.set()
        await copy
        await cleaning
        assert len(two_regions.home.read(WEST, archive.key)) == MANY_PARTS

    two_regions.use(scenario, grace=SHORT)


def test_the_cleanup_of_an_upload_does_not_affect_the_next_one_of_its_attempt(
    two_regions: TwoRegions,
) -> None:
    archive, seen = an_archive(), two_regions.sinks[WEST].requests

    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"first"
        raise NotPackable("a date before 1970")

    async def scenario(storage: RegionalStorage) -> None:
        two_regions.sinks[WEST].misbehave = lambda method, _: (
            Fault.FORBID if method == "DELETE" else None
        )
        uploading = asyncio.create_task(storage.upload(archive, failing(), attempt="a1"))
        await until(lambda: any(method == "DELETE" for method, _ in seen))
        copies = await store(storage, archive, attempt="a1")
        thaw(two_regions)
        with pytest.raises(NotPackable):
            await uploading
        await until(lambda: any("?uploads=&" in target for _, target in seen))
        assert (await storage.find(archive)).copies == copies
        assert copies.regions == (EAST, WEST)

    two_regions.use(scenario, grace=SHORT)


@pytest.mark.parametrize("fault", (Fault.FORBID, Fault.HANG))
def test_cleanups_beyond_the_limit_are_tried_once(two_regions: TwoRegions, fault: Fault) -> None:
    sink = two_regions.sinks[WEST]
    sink.misbehave = lambda _method, _target: fault
    bucket = two_regions.home.bucket(WEST, endpoint=sink.endpoint)

    async def scenario(_storage: RegionalStorage) -> None:
        uploads = [asyncio.create_task(asyncio.sleep(0)) for _ in range(2)]
        cleanup = UploadCleanup(grace=SHORT, max_retried=1)
        first, surplus = (cleanup.start(bucket, "x", each, delete_object=True) for each in uploads)
        if fault is Fault.FORBID:
            await surplus
            assert not first.done()
        await cleanup.close()
        await asyncio.wait([first, surplus])
        assert (first.cancelled(), surplus.cancelled()) == (True, fault is Fault.HANG)

    two_regions.use(scenario)


class ServerWithPages(FaultyHost):
    """A bucket with five uploads, of which it lists two at a time."""

    keys = tuple(f"archives/{name}+&" for name in "abcde")

    def steps(self, request: Request) -> tuple[Step, ...]:
        query = parse_qs(urlsplit(request.target).query)
        begin = self.keys.index(query["key-marker"][0]) + 1 if "key-marker" in query else 0
        keys = [key.replace("&", "&amp;") for key in self.keys[begin : begin + 2]]
        uploads = "".join(
            f"<Upload><Key>{key}</Key><UploadId>{key}</UploadId>"
            f"<Initiated>2026-01-01T12:00:00Z</Initiated></Upload>"
            for key in keys
        )
        truncated = str(begin + 2 < len(self.keys)).lower()
        markers = (
            f"<NextKeyMarker>{keys[-1]}</NextKeyMarker><NextUploadIdMarker>x</NextUploadIdMarker>"
        )
        body = f"<Result>{uploads}<IsTruncated>{truncated}</IsTruncated>{markers}</Result>"
        return (sized(body.encode()),)


def test_a_long_list_of_uploads_is_read_page_by_page() -> None:
    with ServerWithPages() as host, serving(host):
        home = Home(server=S3Server(endpoint=host.url, strict=True), names={EAST: "east"})
        found = run(lambda: unfinished(home.bucket(EAST)))
        assert tuple(upload.object_key for upload in found) == host.keys
        assert len(host.requests) == 3


class ServerWithoutTimeZone(FaultyHost):
    """A bucket with three uploads whose ids are their dates. Two dates lack a time zone."""

    dates = ("2026-01-01T12:00:00", "2026-01-01T12:00:01", "2026-01-01T12:00:02Z")

    def steps(self, request: Request) -> tuple[Step, ...]:
        if request.method == "DELETE":
            return (sized(b"", "204 No Content"),)
        uploads = "".join(
            f"<Upload><Key>archives/x</Key><UploadId>{date}</UploadId>"
            f"<Initiated>{date}</Initiated></Upload>"
            for date in self.dates
        )
        return (sized(f"<Result>{uploads}</Result>".encode()),)

    def aborted(self) -> list[str]:
        sent = [urlsplit(each.target) for each in self.requests if each.method == "DELETE"]
        return [parse_qs(url.query)["uploadId"][0] for url in sent]


def test_an_upload_time_without_time_zone_is_in_utc() -> None:
    with ServerWithoutTimeZone() as host, serving(host):
        home = Home(server=S3Server(endpoint=host.url, strict=True), names={EAST: "east"})
        bucket = home.bucket(EAST)
        until = datetime(2026, 1, 1, 12, tzinfo=UTC)
        run(lambda: bucket.abort_uploads("archives/x", until=until))
        assert host.aborted() == [host.dates[0]]
        assert [each.initiated_at.second for each in run(lambda: unfinished(bucket))] == [0, 1, 2]
