"""Several regions as one storage, when their answers differ."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable, UnreadableManifest
from archiver.model import Copies
from archiver.storage.object_lists import PAGE_KEYS
from archiver.storage.regional_storage import RegionalStorage, open_storage
from tests.parts.s3 import REGIONS, S3Server
from tests.parts.s3_fault_proxy import Fault, sink
from tests.storage.conftest import (
    EAST,
    WEST,
    TwoRegions,
    an_archive,
    store,
)


@pytest.mark.parametrize("data", (b"one", b"another"))
def test_a_region_with_a_different_manifest_has_no_copy(
    two_regions: TwoRegions, data: bytes
) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> Copies | None:
        return (await storage.find(archive)).copies

    two_regions.use(lambda storage: store(storage, archive, b"one", attempt="a1"), regions=(EAST,))
    two_regions.use(lambda storage: store(storage, archive, data, attempt="a2"), regions=(WEST,))
    with capture_logs() as logs:
        copies = two_regions.use(scenario)
    assert copies is not None
    assert copies.regions == (EAST,)
    (line,) = [line for line in logs if line["event"] == "copy.differs"]
    assert line["region"] == WEST
    assert (line["sha256"] == line["expected_sha256"]) == (data == b"one")


@pytest.mark.parametrize("elsewhere", ("damaged", "away", "absent"))
def test_a_damaged_manifest_is_reported_whatever_the_other_region_answers(
    two_regions: TwoRegions, elsewhere: str
) -> None:
    archive = an_archive()
    for region in REGIONS[: 2 if elsewhere == "damaged" else 1]:
        path = f"/{two_regions.home.names[region]}/manifests/{archive.key}.json"
        assert two_regions.home.server.request("PUT", path, body=b"{}")[0] == 200
    if elsewhere == "away":
        two_regions.sinks[WEST].misbehave = lambda _method, _target: Fault.FORBID

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(UnreadableManifest):
            await storage.find(archive)

    two_regions.use(scenario)


def test_presigning_for_an_unconfigured_region_raises(two_regions: TwoRegions) -> None:
    copies = two_regions.use(lambda storage: store(storage, an_archive()))
    elsewhere = RegionalStorage(buckets=[two_regions.home.bucket(WEST)])
    with pytest.raises(StorageUnavailable):
        elsewhere.presign(copies, EAST, method="GET")


def test_a_listing_spans_pages_and_never_switches_regions(weed: S3Server) -> None:
    home = weed.make_home()
    archives = [an_archive() for _ in range(PAGE_KEYS + 10)]
    names = [*(f"{archive.key}.json" for archive in archives), "v1/hgmo/stranger", "v1/a.json"]
    paths = [f"/{home.names[EAST]}/manifests/{name}" for name in names]
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(partial(weed.request, "PUT"), paths)} == {200}

    async def read(storage: RegionalStorage, keys: list[str]) -> None:
        async for archive in storage.iter_archives():
            keys.append(archive.key)  # noqa: PERF401 - those before a failure count

    async def scenario(endpoint: str) -> None:
        buckets = [home.bucket(EAST, endpoint=endpoint), home.bucket(WEST)]
        async with open_storage(buckets) as storage:
            await read(storage, whole)
            east.misbehave = lambda _, target: Fault.FORBID if "token" in target else None
            with pytest.raises(StorageUnavailable):
                await read(storage, broken)

    whole: list[str] = []
    broken: list[str] = []
    with sink(weed.endpoint) as east:
        asyncio.run(scenario(east.endpoint))

    assert whole == sorted(archive.key for archive in archives)
    assert 0 < len(broken) <= PAGE_KEYS
