"""RegionalStorage that fail, hang and dawdle while others do not."""

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
from tests.parts.sink import Fault, Misbehave
from tests.storage.conftest import EAST, LARGE, NOTHING, WEST, Coast, an_archive, store, stream

OUTCOMES = ("succeeded", "failed", "aborted")
SHORT = timedelta(seconds=0.2)


def at_parts(fault: Fault) -> Misbehave:
    return lambda method, target: fault if method == "PUT" and "partNumber" in target else None


def at_completion(fault: Fault) -> Misbehave:
    return lambda method, target: fault if method == "POST" and "uploadId" in target else None


def at_writes(fault: Fault) -> Misbehave:
    return lambda method, _target: fault if method in {"PUT", "POST"} else None


def upload(
    coast: Coast, data: bytes, *, max_lag: timedelta = MAX_LAG, grace: timedelta = GRACE
) -> Upload:
    return coast.use(
        lambda regions: regions.upload(an_archive(), stream(data), attempt="a1"),
        max_lag=max_lag,
        grace=grace,
    )


def counted() -> Counter[tuple[str, str]]:
    """Return how many uploads there were so far, by region and outcome."""
    outcomes = [(region, outcome) for region in REGIONS for outcome in OUTCOMES]
    return Counter({each: METRICS.uploads.labels(*each)._value.get() for each in outcomes})  # noqa: SLF001


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("size_bytes", (1000, LARGE))
def test_a_region_that_hangs_does_not_hold_up_the_other(
    coast: Coast, region: str, size_bytes: int
) -> None:
    data = secrets.token_bytes(size_bytes)
    (sick,) = [other for other in REGIONS if other == region]
    (sound,) = [other for other in REGIONS if other != region]
    coast.sinks[sick].misbehave = at_writes(Fault.HANG)
    uploaded = upload(coast, data, max_lag=SHORT, grace=SHORT)
    assert uploaded.regions == (sound,)
    assert "waiting" in uploaded.failures[sick].message
    assert coast.home.keys() == {sick: [], sound: [uploaded.object_key]}
    assert coast.home.read(sound, uploaded.object_key) == data


@pytest.mark.parametrize(
    "misbehave", (at_parts(Fault.HANG), at_completion(Fault.HANG)), ids=("parts", "completion")
)
def test_a_region_that_hangs_midway_is_left_behind(coast: Coast, misbehave: Misbehave) -> None:
    coast.sinks[WEST].misbehave = misbehave
    uploaded = upload(coast, bytes(LARGE), max_lag=SHORT, grace=SHORT)
    assert uploaded.regions == (EAST,)
    assert coast.home.keys() == {EAST: [uploaded.object_key], WEST: []}


def test_a_region_that_refuses_midway_is_left_behind_and_cleaned_up(coast: Coast) -> None:
    coast.sinks[EAST].misbehave = at_parts(Fault.FORBID)
    uploaded = upload(coast, bytes(LARGE))
    assert uploaded.regions == (WEST,)
    assert coast.home.keys() == {EAST: [], WEST: [uploaded.object_key]}
    assert coast.home.unfinished() == NOTHING


def test_a_part_that_is_lost_on_the_way_is_sent_again(coast: Coast) -> None:
    faults = [Fault.CUT, Fault.REFUSE, Fault.CUT]

    def misbehave(method: str, target: str) -> Fault | None:
        return faults.pop() if faults and method == "PUT" and "partNumber" in target else None

    coast.sinks[WEST].misbehave = misbehave
    data = secrets.token_bytes(LARGE)
    uploaded = upload(coast, data)
    assert not faults
    assert uploaded.regions == REGIONS
    assert coast.home.read(WEST, uploaded.object_key) == data


def test_regions_that_are_slow_together_have_all_their_time(coast: Coast) -> None:
    def dawdle(method: str, _target: str) -> None:
        if method == "PUT":
            time.sleep(1.5 * max_lag.total_seconds())

    max_lag = timedelta(seconds=1.5)  # they cannot be that far apart, however busy the machine is
    for sink in coast.sinks.values():
        sink.misbehave = dawdle
    assert upload(coast, bytes(1000), max_lag=max_lag).regions == REGIONS


def test_a_source_is_read_no_further_when_every_region_failed(coast: Coast) -> None:
    for sink in coast.sinks.values():
        sink.misbehave = at_writes(Fault.FORBID)
    sent = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            yield bytes(100_000)
            sent += 100_000
            await asyncio.sleep(0)

    with pytest.raises(StorageUnavailable):
        coast.use(lambda regions: regions.upload(an_archive(), endless(), attempt="a1"))
    assert sent < 100_000_000


def test_a_stream_that_fails_leaves_no_part_behind(coast: Coast) -> None:
    failure = SourceTimeout("the host fell silent")

    async def failing() -> AsyncGenerator[bytes, None]:
        async for chunk in stream(bytes(LARGE)):
            yield chunk
        while not all(coast.home.unfinished().values()):
            await asyncio.sleep(0.02)
        raise failure

    with pytest.raises(SourceTimeout) as raised:
        coast.use(lambda regions: regions.upload(an_archive(), failing(), attempt="a1"))
    assert raised.value is failure
    assert coast.home.unfinished() == coast.home.keys() == NOTHING


def test_a_cancelled_upload_leaves_no_part_behind(coast: Coast) -> None:
    async def scenario(regions: RegionalStorage) -> None:
        begun = asyncio.Event()

        async def stuck() -> AsyncGenerator[bytes, None]:
            async for chunk in stream(bytes(LARGE)):
                yield chunk
            while not all(coast.home.unfinished().values()):
                await asyncio.sleep(0.02)
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(regions.upload(an_archive(), stuck(), attempt="a1"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    coast.use(scenario)
    assert coast.home.unfinished() == coast.home.keys() == NOTHING


def test_an_upload_that_is_cancelled_at_its_end_leaves_no_object_behind(coast: Coast) -> None:
    coast.sinks[WEST].misbehave = at_completion(Fault.HANG)

    async def scenario(regions: RegionalStorage) -> None:
        task = asyncio.create_task(regions.upload(an_archive(), stream(bytes(LARGE)), attempt="a1"))
        while not coast.home.keys()[EAST]:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = counted()
    coast.use(scenario, grace=SHORT)
    assert coast.home.keys() == NOTHING
    assert counted() - before == {(EAST, "aborted"): 1, (WEST, "aborted"): 1}


def test_uploads_are_counted_by_region_and_outcome(coast: Coast) -> None:
    size_bytes = METRICS.upload_bytes.labels(region=EAST)._value  # noqa: SLF001
    before, bytes_before = counted(), size_bytes.get()
    coast.sinks[WEST].misbehave = at_writes(Fault.FORBID)
    coast.use(lambda regions: store(regions, an_archive(), bytes(1000)))
    assert counted() - before == {(EAST, "succeeded"): 1, (WEST, "failed"): 1}
    assert size_bytes.get() - bytes_before == 1000


def test_an_upload_that_its_region_does_not_show_has_failed(coast: Coast) -> None:
    before = counted()
    coast.sinks[WEST].misbehave = lambda method, _: Fault.FORBID if method == "HEAD" else None
    copies = coast.use(lambda regions: store(regions, an_archive()))
    assert copies.regions == (EAST,)
    assert counted() - before == {(EAST, "succeeded"): 1, (WEST, "failed"): 1}


def test_a_copy_that_its_region_does_not_show_has_failed(coast: Coast) -> None:
    archive = an_archive()
    copies = coast.use(lambda regions: store(regions, archive), regions=(EAST,))
    before = counted()
    coast.sinks[WEST].misbehave = lambda method, _: Fault.FORBID if method == "HEAD" else None

    async def scenario(regions: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable):
            await regions.copy(archive, copies, WEST)

    coast.use(scenario)
    assert counted() - before == {(WEST, "failed"): 1}


PEAK = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from archiver.model import Archive, Node, Region
from archiver.storage.bucket import Bucket
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
            region=Region(name), bucket=name, endpoint=endpoint, aws_region="us-east-1",
            access_key_id=access_key, secret_access_key=secret_key, virtual_hosted=False,
            presigned_ttl=timedelta(minutes=1),
        ) for name in names
    ]) as regions:
        before = peak_kb()
        upload = await regions.upload(archive, chunks(), attempt="a1")
        assert len(upload.regions) == len(names), upload
        print(peak_kb() - before)

asyncio.run(main())
"""


def test_memory_does_not_grow_with_the_archive(rclone: S3Server, tmp_path: Path) -> None:
    script = tmp_path / "peak.py"
    script.write_text(PEAK)
    home = rclone.make_home()
    command = [sys.executable, str(script), rclone.endpoint, rclone.access_key, rclone.secret_key]
    done = subprocess.run(
        [*command, *home.names.values()], check=True, capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 100_000
