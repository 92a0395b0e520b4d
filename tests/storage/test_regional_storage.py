"""What several regions hold together, when they do not all say the same."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable, UnreadableManifest
from archiver.model import Copies, Region
from archiver.ports.storage import Commit, Upload
from archiver.storage.bucket import PAGE_KEYS
from archiver.storage.regional_storage import OBSTORE_EXIT_S, RegionalStorage, open_storage
from tests.parts.s3 import REGIONS, Home, S3Server
from tests.parts.sink import Fault, Misbehave, sink
from tests.storage.conftest import (
    EAST,
    LARGE,
    WEST,
    Coast,
    an_archive,
    kept,
    store,
    stream,
    verified,
)

URL = "https://hg.example/ash"


def once(fault: Fault, method: str) -> Misbehave:
    """Do this to the first manifest that is asked for, or written, and to nothing else."""
    faults = [fault]

    def misbehave(asked: str, target: str) -> Fault | None:
        return faults.pop() if faults and asked == method and "/manifests/" in target else None

    return misbehave


def shorten(coast: Coast) -> Misbehave:
    """Have an object be shorter than it was by the time that it is looked at."""

    def misbehave(method: str, target: str) -> None:
        if method == "HEAD":
            coast.home.server.request("PUT", target, body=b"few")

    return misbehave


def test_of_many_that_commit_at_once_one_wins_everywhere(home: Home) -> None:
    archive = an_archive()
    contents = [secrets.token_bytes(100) for _ in range(16)]

    async def scenario() -> tuple[list[Copies], Copies | None]:
        regions = RegionalStorage(buckets=home.buckets())
        uploads = await asyncio.gather(
            *(
                regions.upload(archive, stream(data), attempt=f"a{number}")
                for number, data in enumerate(contents)
            )
        )
        committed = await asyncio.gather(
            *(
                regions.commit(
                    Commit(archive=archive, upload=upload, verified=verified(data), source_url=URL),
                    prove_lease=kept,
                )
                for upload, data in zip(uploads, contents, strict=True)
            )
        )
        await asyncio.sleep(OBSTORE_EXIT_S)
        return committed, (await regions.find(archive)).copies

    with capture_logs() as logs:
        committed, found = asyncio.run(scenario())
    assert found is not None
    assert found.regions == REGIONS
    assert {copies.manifest.sha256 for copies in committed} == {found.manifest.sha256}
    for region, keys in home.keys("archives/").items():  # a busy server may leave a write unheard
        unheard = {line.get("object_key") for line in logs if line.get("region") == region}
        assert set(keys) - unheard == {found.manifest.object_key}


def test_what_is_committed_twice_stays(coast: Coast) -> None:
    archive = an_archive()

    async def scenario(regions: RegionalStorage) -> Copies:
        upload = await regions.upload(archive, stream(b"data"), attempt="a1")
        first = await regions.commit(
            Commit(archive=archive, upload=upload, verified=verified(b"data"), source_url=URL),
            prove_lease=kept,
        )
        again = await regions.commit(
            Commit(archive=archive, upload=upload, verified=verified(b"data"), source_url=URL),
            prove_lease=kept,
        )
        assert again == first
        return first

    object_key = coast.use(scenario).manifest.object_key
    assert coast.home.keys("archives/") == {EAST: [object_key], WEST: [object_key]}


@pytest.mark.parametrize("data", (b"one", b"another"))
def test_a_region_with_another_manifest_has_no_copy(coast: Coast, data: bytes) -> None:
    archive = an_archive()

    async def scenario(regions: RegionalStorage) -> Copies | None:
        return (await regions.find(archive)).copies

    coast.use(lambda regions: store(regions, archive, b"one", attempt="a1"), regions=(EAST,))
    coast.use(lambda regions: store(regions, archive, data, attempt="a2"), regions=(WEST,))
    with capture_logs() as logs:
        copies = coast.use(scenario)
    assert copies is not None
    assert copies.regions == (EAST,)
    (line,) = [line for line in logs if line["event"] == "copy.differs"]
    assert line["region"] == WEST
    assert (line["sha256"] == line["expected_sha256"]) == (data == b"one")


@pytest.mark.parametrize("elsewhere", ("damaged", "away", "absent"))
def test_a_damaged_manifest_is_neither_an_outage_nor_absent_whatever_the_other_region_says(
    coast: Coast, elsewhere: str
) -> None:
    archive = an_archive()
    for region in REGIONS[: 2 if elsewhere == "damaged" else 1]:
        path = f"/{coast.home.names[region]}/manifests/{archive.key}.json"
        assert coast.home.server.request("PUT", path, body=b"{}")[0] == 200
    if elsewhere == "away":
        coast.sinks[WEST].misbehave = lambda _method, _target: Fault.FORBID

    async def scenario(regions: RegionalStorage) -> None:
        with pytest.raises(UnreadableManifest):
            await regions.find(archive)

    coast.use(scenario)


def test_nothing_is_committed_beside_a_damaged_manifest(coast: Coast) -> None:
    archive = an_archive()
    path = f"/{coast.home.names[WEST]}/manifests/{archive.key}.json"
    assert coast.home.server.request("PUT", path, body=b"{}")[0] == 200
    with pytest.raises(UnreadableManifest):
        coast.use(lambda regions: store(regions, archive))
    assert coast.home.keys("archives/") == {EAST: [], WEST: []}


def test_a_region_with_another_manifest_keeps_it(coast: Coast) -> None:
    archive = an_archive()
    east = coast.use(lambda regions: store(regions, archive, b"one"), regions=(EAST,))
    west = coast.use(lambda regions: store(regions, archive, b"two"), regions=(WEST,))

    async def scenario(regions: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable):
            await regions.copy(archive, east, WEST)

    coast.use(scenario)

    async def find(regions: RegionalStorage) -> Copies | None:
        return (await regions.find(archive)).copies

    assert coast.use(find, regions=(WEST,)) == west


def test_a_decision_without_the_primary_yields_to_what_the_primary_has(coast: Coast) -> None:
    archive = an_archive()

    async def scenario(regions: RegionalStorage) -> Copies:
        upload = await regions.upload(archive, stream(b"late"), attempt="a2")
        western = Upload(object_key=upload.object_key, regions=(WEST,))
        return await regions.commit(
            Commit(archive=archive, upload=western, verified=verified(b"late"), source_url=URL),
            prove_lease=kept,
        )

    first = coast.use(lambda regions: store(regions, archive, b"first"), regions=(EAST,))
    coast.sinks[EAST].misbehave = once(Fault.FORBID, "GET")
    assert coast.use(scenario) == first


def test_bytes_stay_where_a_manifest_may_have_been_written_unheard(coast: Coast) -> None:
    archive = an_archive()
    forbid_once = once(Fault.FORBID, "GET")
    written: list[str] = []

    def write_and_fall_silent(method: str, target: str) -> Fault | None:
        if "/manifests/" not in target:
            return None
        if written:
            return Fault.FORBID
        if method == "PUT":
            written.append(target)
            return Fault.MUTE
        return None

    async def scenario(regions: RegionalStorage) -> tuple[Upload, Copies]:
        upload = await regions.upload(archive, stream(b"two"), attempt="a2")
        coast.sinks[EAST].misbehave = write_and_fall_silent
        coast.sinks[WEST].misbehave = forbid_once
        copies = await regions.commit(
            Commit(archive=archive, upload=upload, verified=verified(b"two"), source_url=URL),
            prove_lease=kept,
        )
        return upload, copies

    first = coast.use(lambda regions: store(regions, archive, b"one"), regions=(WEST,))
    upload, copies = coast.use(scenario)
    assert copies == first
    assert coast.home.keys("archives/") == {
        EAST: [upload.object_key],
        WEST: [first.manifest.object_key],
    }


def test_bytes_stay_where_their_manifest_may_arrive_after_another_one_was_read(
    coast: Coast,
) -> None:
    archive = an_archive()
    first = coast.use(lambda regions: store(regions, archive, b"one", attempt="a1"))
    path = f"/{coast.home.names[EAST]}/manifests/{archive.key}.json"
    body = coast.home.read(EAST, f"manifests/{archive.key}.json")
    for region in REGIONS:
        name = coast.home.names[region]
        coast.home.server.request("DELETE", f"/{name}/manifests/{archive.key}.json")

    def let_the_other_one_pass(method: str, target: str) -> Fault | None:
        if method != "PUT" or "/manifests/" not in target:
            return None
        coast.home.server.request("PUT", path, body=body)
        return Fault.REFUSE

    coast.sinks[EAST].misbehave = let_the_other_one_pass
    with capture_logs() as logs:
        copies = coast.use(lambda regions: store(regions, archive, b"two", attempt="a2"))
    assert copies.manifest == first.manifest
    objects = coast.home.keys("archives/")
    (late,) = set(objects[EAST]) - {first.manifest.object_key}
    assert "/a2-" in late
    assert objects[WEST] == [first.manifest.object_key]
    kept_back = [line for line in logs if line["event"] == "upload.kept"]
    assert [(line["region"], line["object_key"]) for line in kept_back] == [(EAST, late)]


def test_bytes_that_are_kept_as_no_region_took_their_manifest_are_reported(coast: Coast) -> None:
    for region in coast.sinks.values():
        region.misbehave = lambda method, target: (
            Fault.FORBID if method == "PUT" and "/manifests/" in target else None
        )
    with capture_logs() as logs, pytest.raises(StorageUnavailable, match="no region took"):
        coast.use(lambda regions: store(regions, an_archive()))
    kept_back = [line for line in logs if line["event"] == "upload.kept"]
    assert {line["region"]: [line["object_key"]] for line in kept_back} == coast.home.keys(
        "archives/"
    )


def test_the_lease_is_proven_while_the_regions_are_looked_at_and_before_a_manifest(
    coast: Coast,
) -> None:
    archive = an_archive()
    seen = [coast.sinks[region].requests for region in REGIONS]

    async def hold() -> None:
        async with asyncio.timeout(5):
            while not all({"HEAD", "GET"} <= {method for method, _ in asked} for asked in seen):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # in which nothing else may happen
        assert not any("/manifests/" in t for asked in seen for m, t in asked if m == "PUT")

    async def scenario(regions: RegionalStorage) -> Copies:
        upload = await regions.upload(archive, stream(b"data"), attempt="a1")
        return await regions.commit(
            Commit(archive=archive, upload=upload, verified=verified(b"data"), source_url=URL),
            prove_lease=hold,
        )

    assert coast.use(scenario).regions == REGIONS


@pytest.mark.parametrize("short", REGIONS)
def test_a_region_that_has_less_than_was_verified_has_no_copy(coast: Coast, short: Region) -> None:
    coast.sinks[short].misbehave = shorten(coast)
    with capture_logs() as logs:
        copies = coast.use(lambda regions: store(regions, an_archive()))
    assert copies.regions == tuple(region for region in REGIONS if region != short)
    assert [line["region"] for line in logs if line["event"] == "upload.failed"] == [short]
    assert coast.home.keys()[short] == []


def test_what_no_region_has_whole_is_not_committed(coast: Coast) -> None:
    for region in REGIONS:
        coast.sinks[region].misbehave = shorten(coast)
    with pytest.raises(StorageUnavailable, match="whole"):
        coast.use(lambda regions: store(regions, an_archive()))
    assert coast.home.keys() == {EAST: [], WEST: []}


@pytest.mark.parametrize("refused", ("PUT", "HEAD", "nothing"))
def test_who_is_cancelled_while_a_region_is_swept_leaves_nothing(
    coast: Coast, refused: str
) -> None:
    archive = an_archive()
    swept: list[str] = []
    if refused == "nothing":  # then there is something to sweep if the archive is there already
        coast.use(lambda regions: store(regions, archive, b"first"))
    before = coast.home.keys("archives/")

    def refuse_to_be_swept(method: str, target: str) -> Fault | None:
        if method == "DELETE" and not swept:
            swept.append(target)
            return Fault.HANG
        return Fault.FORBID if method == refused else None

    async def scenario(regions: RegionalStorage) -> None:
        coast.sinks[WEST].misbehave = refuse_to_be_swept
        storing = asyncio.create_task(store(regions, archive, attempt="a2"))
        async with asyncio.timeout(20):
            while not swept:
                await asyncio.sleep(0.01)
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing

    coast.use(scenario)
    assert coast.home.keys("archives/") == before


def test_a_copy_that_came_short_is_none(coast: Coast) -> None:
    archive = an_archive()
    copies = coast.use(lambda regions: store(regions, archive), regions=(WEST,))
    coast.sinks[EAST].misbehave = shorten(coast)

    async def scenario(regions: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable, match="3 bytes"):
            await regions.copy(archive, copies, EAST)
        assert (await regions.find(archive)).copies == copies

    coast.use(scenario)


def test_the_next_region_decides_when_the_primary_takes_no_manifest(coast: Coast) -> None:
    archive = an_archive()
    coast.sinks[EAST].misbehave = lambda method, target: (
        Fault.FORBID if method == "PUT" and "/manifests/" in target else None
    )
    with capture_logs() as logs:
        copies = coast.use(lambda regions: store(regions, archive))
    assert copies.regions == (WEST,)
    assert [line["region"] for line in logs if line["event"] == "commit.failed"] == [EAST]


def test_a_copy_comes_from_the_next_region_when_one_is_damaged(weed: S3Server) -> None:
    names = tuple(Region(name) for name in ("one", "two", "three"))
    home = weed.make_home(names)
    one, two, three = home.buckets()
    archive = an_archive()

    async def scenario() -> Copies | None:
        copies = await store(RegionalStorage(buckets=[one, two]), archive)
        path = f"/{home.names[one.region]}/{copies.manifest.object_key}"
        assert weed.request("PUT", path, body=b"DATA")[0] == 200
        regions = RegionalStorage(buckets=[one, two, three])
        await regions.copy(archive, copies, three.region)
        await asyncio.sleep(0.05)
        return (await regions.find(archive)).copies

    with capture_logs() as logs:
        copies = asyncio.run(scenario())
    assert copies is not None
    assert copies.regions == names
    assert home.read(three.region, copies.manifest.object_key) == b"data"
    assert [line["region"] for line in logs if line["event"] == "copy.corrupt"] == [one.region]


def test_a_copy_that_breaks_off_midway_leaves_no_part_behind(coast: Coast) -> None:
    archive, data = an_archive(), secrets.token_bytes(LARGE)
    copies = coast.use(lambda regions: store(regions, archive, data), regions=(WEST,))

    async def scenario(regions: RegionalStorage) -> None:
        coast.sinks[WEST].misbehave = lambda method, target: (
            Fault.CUT if method == "GET" and "/archives/" in target else None
        )
        with pytest.raises(StorageUnavailable):
            await regions.copy(archive, copies, EAST)

    coast.use(scenario)
    assert coast.home.keys()[EAST] == coast.home.unfinished()[EAST] == []


def test_there_are_no_links_to_regions_that_are_not_configured_any_more(coast: Coast) -> None:
    copies = coast.use(lambda regions: store(regions, an_archive()))
    elsewhere = RegionalStorage(buckets=[coast.home.bucket(WEST)])
    with pytest.raises(StorageUnavailable):
        elsewhere.presign(copies, EAST, method="GET")


def test_a_list_goes_on_over_its_pages_and_never_over_to_another_region(weed: S3Server) -> None:
    home = weed.make_home()
    archives = [an_archive() for _ in range(PAGE_KEYS + 10)]
    names = [*(f"{archive.key}.json" for archive in archives), "v1/hgmo/stranger", "v1/a.json"]
    paths = [f"/{home.names[EAST]}/manifests/{name}" for name in names]
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _ in pool.map(partial(weed.request, "PUT"), paths)} == {200}

    async def read(regions: RegionalStorage, keys: list[str]) -> None:
        async for archive in regions.iter_archives():
            keys.append(archive.key)  # noqa: PERF401 - those before a failure count

    async def scenario(endpoint: str) -> None:
        buckets = [home.bucket(EAST, endpoint=endpoint), home.bucket(WEST)]
        async with open_storage(buckets) as regions:
            await read(regions, whole)
            east.misbehave = lambda _, target: Fault.FORBID if "token" in target else None
            with pytest.raises(StorageUnavailable):
                await read(regions, broken)

    whole: list[str] = []
    broken: list[str] = []
    with sink(weed.endpoint) as east:
        asyncio.run(scenario(east.endpoint))

    assert whole == sorted(archive.key for archive in archives)
    assert 0 < len(broken) <= PAGE_KEYS
