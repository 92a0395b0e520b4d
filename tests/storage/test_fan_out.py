"""Uploads to regions of which one fails, hangs or is slow."""

import asyncio
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.errors import SourceTimeout, StorageUnavailable
from archiver.ports.storage import Upload
from archiver.storage.fan_out import MAX_LAG
from archiver.storage.regional_storage import RegionalStorage
from archiver.storage.upload_cleanup import GRACE
from archiver.telemetry import METRICS
from tests.parts.s3 import REGIONS, S3Server
from tests.parts.s3_fault_proxy import Fault, Misbehave
from tests.parts.thorough import thorough
from tests.storage.conftest import EAST, LARGE, NOTHING, WEST, TwoRegions, an_archive, store, stream

OUTCOMES = ("succeeded", "failed", "aborted")
SHORT = timedelta(seconds=0.2)


def at_parts(fault: Fault) -> Misbehave:
    return lambda method, target: fault if method == "PUT" and "partNumber" in target else None


def at_completion(fault: Fault) -> Misbehave:
    return lambda method, target: fault if method == "POST" and "uploadId" in target else None


def at_writes(fault: Fault) -> Misbehave:
    return lambda method, _target: fault if method in {"PUT", "POST"} else None


def upload(
    two_regions: TwoRegions, data: bytes, *, max_lag: timedelta = MAX_LAG, grace: timedelta = GRACE
) -> Upload:
    return two_regions.use(
        lambda storage: storage.upload(an_archive(), stream(data), attempt="a1"),
        max_lag=max_lag,
        grace=grace,
    )


def counted() -> Counter[tuple[str, str]]:
    """Return the number of uploads so far, by region and outcome."""
    outcomes = [(region, outcome) for region in REGIONS for outcome in OUTCOMES]
    return Counter({each: METRICS.uploads.labels(*each)._value.get() for each in outcomes})  # noqa: SLF001


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("size_bytes", (1000, LARGE))
def test_a_hanging_region_does_not_block_the_other(
    two_regions: TwoRegions, region: str, size_bytes: int
) -> None:
    data = secrets.token_bytes(size_bytes)
    (sick,) = [other for other in REGIONS if other == region]
    (sound,) = [other for other in REGIONS if other != region]
    two_regions.sinks[sick].misbehave = at_writes(Fault.HANG)
    uploaded = upload(two_regions, data, max_lag=SHORT, grace=SHORT)
    assert uploaded.regions == (sound,)
    assert "waiting" in uploaded.failures[sick].message
    assert two_regions.home.keys() == {sick: [], sound: [uploaded.object_key]}
    assert two_regions.home.read(sound, uploaded.object_key) == data


@pytest.mark.parametrize(
    "misbehave",
    (at_parts(Fault.HANG), *thorough(at_completion(Fault.HANG))),
    ids=("parts", "completion"),
)
def test_a_region_that_hangs_midway_is_dropped(
    two_regions: TwoRegions, misbehave: Misbehave
) -> None:
    two_regions.sinks[WEST].misbehave = misbehave
    uploaded = upload(two_regions, bytes(LARGE), max_lag=SHORT, grace=SHORT)
    assert uploaded.regions == (EAST,)
    assert two_regions.home.keys() == {EAST: [uploaded.object_key], WEST: []}


def test_a_region_that_rejects_parts_is_dropped_and_cleaned_up(two_regions: TwoRegions) -> None:
    two_regions.sinks[EAST].misbehave = at_parts(Fault.FORBID)
    uploaded = upload(two_regions, bytes(LARGE))
    assert uploaded.regions == (WEST,)
    assert two_regions.home.keys() == {EAST: [], WEST: [uploaded.object_key]}
    assert two_regions.home.unfinished() == NOTHING


def test_a_lost_part_is_sent_again(two_regions: TwoRegions) -> None:
    faults = [Fault.CUT, Fault.REFUSE, Fault.CUT]

    def misbehave(method: str, target: str) -> Fault | None:
        return faults.pop() if faults and method == "PUT" and "partNumber" in target else None

    two_regions.sinks[WEST].misbehave = misbehave
    data = secrets.token_bytes(LARGE)
    uploaded = upload(two_regions, data)
    assert not faults
    assert uploaded.regions == REGIONS
    assert two_regions.home.read(WEST, uploaded.object_key) == data


@pytest.mark.thorough
def test_equally_slow_regions_have_no_time_limit(two_regions: TwoRegions) -> None:
    def dawdle(method: str, _target: str) -> None:
        if method == "PUT":
            time.sleep(1.5 * max_lag.total_seconds())

    max_lag = timedelta(seconds=1.5)  # more than their difference, even on a busy machine
    for sink in two_regions.sinks.values():
        sink.misbehave = dawdle
    assert upload(two_regions, bytes(1000), max_lag=max_lag).regions == REGIONS


def test_reading_stops_when_every_region_has_failed(two_regions: TwoRegions) -> None:
    for sink in two_regions.sinks.values():
        sink.misbehave = at_writes(Fault.FORBID)
    sent = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            yield bytes(100_000)
            sent += 100_000
            await asyncio.sleep(0)

    with pytest.raises(StorageUnavailable):
        two_regions.use(lambda storage: storage.upload(an_archive(), endless(), attempt="a1"))
    assert sent < 100_000_000


def test_a_failing_stream_leaves_no_part(two_regions: TwoRegions) -> None:
    failure = SourceTimeout("the host fell silent")

    async def failing() -> AsyncGenerator[bytes, None]:
        async for chunk in stream(bytes(LARGE)):
            yield chunk
        while not all(two_regions.home.unfinished().values()):
            await asyncio.sleep(0.02)
        raise failure

    with pytest.raises(SourceTimeout) as raised:
        two_regions.use(lambda storage: storage.upload(an_archive(), failing(), attempt="a1"))
    assert raised.value is failure
    assert two_regions.home.unfinished() == two_regions.home.keys() == NOTHING


def test_a_cancelled_upload_leaves_no_part(two_regions: TwoRegions) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        begun = asyncio.Event()

        async def stuck() -> AsyncGenerator[bytes, None]:
            async for chunk in stream(bytes(LARGE)):
                yield chunk
            while not all(two_regions.home.unfinished().values()):
                await asyncio.sleep(0.02)
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(storage.upload(an_archive(), stuck(), attempt="a1"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    two_regions.use(scenario)
    assert two_regions.home.unfinished() == two_regions.home.keys() == NOTHING


def test_an_upload_cancelled_at_its_end_leaves_no_object(two_regions: TwoRegions) -> None:
    two_regions.sinks[WEST].misbehave = at_completion(Fault.HANG)

    async def scenario(storage: RegionalStorage) -> None:
        task = asyncio.create_task(storage.upload(an_archive(), stream(bytes(LARGE)), attempt="a1"))
        while not two_regions.home.keys()[EAST]:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = counted()
    two_regions.use(scenario, grace=SHORT)
    assert two_regions.home.keys() == NOTHING
    assert counted() - before == {(EAST, "aborted"): 1, (WEST, "aborted"): 1}


def test_uploads_are_counted_by_region_and_outcome(two_regions: TwoRegions) -> None:
    size_bytes = METRICS.upload_bytes.labels(region=EAST)._value  # noqa: SLF001
    before, bytes_before = counted(), size_bytes.get()
    two_regions.sinks[WEST].misbehave = at_writes(Fault.FORBID)
    two_regions.use(lambda storage: store(storage, an_archive(), bytes(1000)))
    assert counted() - before == {(EAST, "succeeded"): 1, (WEST, "failed"): 1}
    assert size_bytes.get() - bytes_before == 1000


def test_an_upload_that_its_region_does_not_show_counts_as_failed(two_regions: TwoRegions) -> None:
    before = counted()
    two_regions.sinks[WEST].misbehave = lambda method, _: Fault.FORBID if method == "HEAD" else None
    copies = two_regions.use(lambda storage: store(storage, an_archive()))
    assert copies.regions == (EAST,)
    assert counted() - before == {(EAST, "succeeded"): 1, (WEST, "failed"): 1}


def test_a_copy_that_its_region_does_not_show_counts_as_failed(two_regions: TwoRegions) -> None:
    archive = an_archive()
    copies = two_regions.use(lambda storage: store(storage, archive), regions=(EAST,))
    before = counted()
    two_regions.sinks[WEST].misbehave = lambda method, _: Fault.FORBID if method == "HEAD" else None

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable):
            await storage.copy(archive, copies, WEST)

    two_regions.use(scenario)
    assert counted() - before == {(WEST, "failed"): 1}


PEAK = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from archiver.model import Archive, Node, Region
from archiver.storage.bucket import Bucket
from archiver.storage.s3_stores import S3Settings
from archiver.storage.regional_storage import open_storage

endpoint, access_key, secret_key, *names = sys.argv[1:]

def peak_kb():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

async def chunks():
    for _ in range(3_200):
        yield bytes(65_536)

async def main():
    archive = Archive(source="s", repo="r", node=Node("0" * 40), subdir="", suffix="zip")
    async with open_storage([
        Bucket(
            S3Settings(
                bucket=name, endpoint=endpoint, region="us-east-1",
                access_key_id=access_key, secret_access_key=secret_key,
            ),
            region=Region(name),
            presigned_ttl=timedelta(minutes=1),
        ) for name in names
    ]) as storage:
        before = peak_kb()
        upload = await storage.upload(archive, chunks(), attempt="a1")
        assert len(upload.regions) == len(names), upload
        print(peak_kb() - before)

asyncio.run(main())
"""


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_archive(rclone: S3Server, tmp_path: Path) -> None:
    script = tmp_path / "peak.py"
    script.write_text(PEAK)
    home = rclone.make_home()
    command = [sys.executable, str(script), rclone.endpoint, rclone.access_key, rclone.secret_key]
    done = subprocess.run(
        [*command, *home.names.values()], check=True, capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 100_000
