"""Commits to several regions of which some misbehave."""

import asyncio
import secrets
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from archiver.errors import InternalError, StorageUnavailable, UnreadableManifest
from archiver.model import Copies, Region
from archiver.ports.storage import Upload
from archiver.storage.regional_storage import OBSTORE_EXIT_S, RegionalStorage
from tests.parts.s3 import REGIONS, Home
from tests.parts.s3_fault_proxy import Fault, Misbehave
from tests.storage.conftest import (
    EAST,
    WEST,
    TwoRegions,
    an_archive,
    commit_of,
    lease_held,
    shorten,
    store,
    stream,
)


def once(fault: Fault, method: str) -> Misbehave:
    """Return *fault* for the first request of a manifest with *method*, and for no other."""
    faults = [fault]

    def misbehave(asked: str, target: str) -> Fault | None:
        return faults.pop() if faults and asked == method and "/manifests/" in target else None

    return misbehave


def test_a_manifest_that_no_reader_would_accept_is_not_written(two_regions: TwoRegions) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> None:
        upload = await storage.upload(archive, stream(b"bytes"), attempt="a1")
        commit = replace(commit_of(archive, upload, b"bytes"), source_url="not a URL")
        with pytest.raises(InternalError, match="source_url"):
            await storage.commit(commit, prove_lease=lease_held)
        assert (await storage.find(archive)).copies is None

    two_regions.use(scenario)
    assert two_regions.home.keys("archives/") == {EAST: [], WEST: []}


def test_one_of_many_concurrent_commits_wins_in_all_regions(home: Home) -> None:
    archive = an_archive()
    contents = [secrets.token_bytes(100) for _ in range(16)]

    async def scenario() -> tuple[list[Copies], Copies | None]:
        storage = RegionalStorage(buckets=home.buckets())
        uploads = await asyncio.gather(
            *(
                storage.upload(archive, stream(data), attempt=f"a{number}")
                for number, data in enumerate(contents)
            )
        )
        committed = await asyncio.gather(
            *(
                storage.commit(
                    commit_of(archive, upload, data),
                    prove_lease=lease_held,
                )
                for upload, data in zip(uploads, contents, strict=True)
            )
        )
        await asyncio.sleep(OBSTORE_EXIT_S)
        return committed, (await storage.find(archive)).copies

    with capture_logs() as logs:
        committed, found = asyncio.run(scenario())
    assert found is not None
    assert found.regions == REGIONS
    assert {copies.manifest.sha256 for copies in committed} == {found.manifest.sha256}
    for region, keys in home.keys(
        "archives/"
    ).items():  # on a busy server, a write may stay unconfirmed
        unconfirmed = {line.get("object_key") for line in logs if line.get("region") == region}
        assert set(keys) - unconfirmed == {found.manifest.object_key}


def test_committing_an_upload_twice_returns_the_same_copies(two_regions: TwoRegions) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> Copies:
        upload = await storage.upload(archive, stream(b"data"), attempt="a1")
        first = await storage.commit(
            commit_of(archive, upload, b"data"),
            prove_lease=lease_held,
        )
        again = await storage.commit(
            commit_of(archive, upload, b"data"),
            prove_lease=lease_held,
        )
        assert again == first
        return first

    object_key = two_regions.use(scenario).manifest.object_key
    assert two_regions.home.keys("archives/") == {EAST: [object_key], WEST: [object_key]}


def test_a_damaged_manifest_prevents_a_commit(two_regions: TwoRegions) -> None:
    archive = an_archive()
    path = f"/{two_regions.home.names[WEST]}/manifests/{archive.key}.json"
    assert two_regions.home.server.request("PUT", path, body=b"{}")[0] == 200
    with pytest.raises(UnreadableManifest):
        two_regions.use(lambda storage: store(storage, archive))
    assert two_regions.home.keys("archives/") == {EAST: [], WEST: []}


def test_a_commit_without_the_primary_yields_to_the_primarys_manifest(
    two_regions: TwoRegions,
) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> Copies:
        upload = await storage.upload(archive, stream(b"late"), attempt="a2")
        western = Upload(object_key=upload.object_key, regions=(WEST,))
        return await storage.commit(
            commit_of(archive, western, b"late"),
            prove_lease=lease_held,
        )

    first = two_regions.use(lambda storage: store(storage, archive, b"first"), regions=(EAST,))
    two_regions.sinks[EAST].misbehave = once(Fault.FORBID, "GET")
    assert two_regions.use(scenario) == first


def test_an_object_stays_where_the_write_of_its_manifest_is_unconfirmed(
    two_regions: TwoRegions,
) -> None:
    archive = an_archive()
    forbid_once = once(Fault.FORBID, "GET")
    written: list[str] = []

    def write_without_response(method: str, target: str) -> Fault | None:
        if "/manifests/" not in target:
            return None
        if written:
            return Fault.FORBID
        if method == "PUT":
            written.append(target)
            return Fault.MUTE
        return None

    async def scenario(storage: RegionalStorage) -> tuple[Upload, Copies]:
        upload = await storage.upload(archive, stream(b"two"), attempt="a2")
        two_regions.sinks[EAST].misbehave = write_without_response
        two_regions.sinks[WEST].misbehave = forbid_once
        copies = await storage.commit(
            commit_of(archive, upload, b"two"),
            prove_lease=lease_held,
        )
        return upload, copies

    first = two_regions.use(lambda storage: store(storage, archive, b"one"), regions=(WEST,))
    upload, copies = two_regions.use(scenario)
    assert copies == first
    assert two_regions.home.keys("archives/") == {
        EAST: [upload.object_key],
        WEST: [first.manifest.object_key],
    }


def test_an_object_stays_where_its_manifest_may_still_replace_another_one(
    two_regions: TwoRegions,
) -> None:
    archive = an_archive()
    first = two_regions.use(lambda storage: store(storage, archive, b"one", attempt="a1"))
    path = f"/{two_regions.home.names[EAST]}/manifests/{archive.key}.json"
    body = two_regions.home.read(EAST, f"manifests/{archive.key}.json")
    for region in REGIONS:
        name = two_regions.home.names[region]
        two_regions.home.server.request("DELETE", f"/{name}/manifests/{archive.key}.json")

    def let_the_other_one_win(method: str, target: str) -> Fault | None:
        if method != "PUT" or "/manifests/" not in target:
            return None
        two_regions.home.server.request("PUT", path, body=body)
        return Fault.REFUSE

    two_regions.sinks[EAST].misbehave = let_the_other_one_win
    with capture_logs() as logs:
        copies = two_regions.use(lambda storage: store(storage, archive, b"two", attempt="a2"))
    assert copies.manifest == first.manifest
    objects = two_regions.home.keys("archives/")
    (late,) = set(objects[EAST]) - {first.manifest.object_key}
    assert "/a2-" in late
    assert objects[WEST] == [first.manifest.object_key]
    kept = [line for line in logs if line["event"] == "upload.kept"]
    assert [(line["region"], line["object_key"]) for line in kept] == [(EAST, late)]


def test_objects_whose_manifest_no_region_took_are_logged(two_regions: TwoRegions) -> None:
    for region in two_regions.sinks.values():
        region.misbehave = lambda method, target: (
            Fault.FORBID if method == "PUT" and "/manifests/" in target else None
        )
    with capture_logs() as logs, pytest.raises(StorageUnavailable, match="no region took"):
        two_regions.use(lambda storage: store(storage, an_archive()))
    kept = [line for line in logs if line["event"] == "upload.kept"]
    assert {line["region"]: [line["object_key"]] for line in kept} == two_regions.home.keys(
        "archives/"
    )


def test_the_lease_is_proven_during_the_lookup_and_before_the_first_write(
    two_regions: TwoRegions,
) -> None:
    archive = an_archive()
    seen = [two_regions.sinks[region].requests for region in REGIONS]

    async def hold() -> None:
        async with asyncio.timeout(5):
            while not all({"HEAD", "GET"} <= {method for method, _ in asked} for asked in seen):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # no write may happen meanwhile
        assert not any("/manifests/" in t for asked in seen for m, t in asked if m == "PUT")

    async def scenario(storage: RegionalStorage) -> Copies:
        upload = await storage.upload(archive, stream(b"data"), attempt="a1")
        return await storage.commit(
            commit_of(archive, upload, b"data"),
            prove_lease=hold,
        )

    assert two_regions.use(scenario).regions == REGIONS


@pytest.mark.parametrize("short", REGIONS)
def test_a_region_with_a_shorter_object_has_no_copy(two_regions: TwoRegions, short: Region) -> None:
    two_regions.sinks[short].misbehave = shorten(two_regions)
    with capture_logs() as logs:
        copies = two_regions.use(lambda storage: store(storage, an_archive()))
    assert copies.regions == tuple(region for region in REGIONS if region != short)
    assert [line["region"] for line in logs if line["event"] == "upload.failed"] == [short]
    assert two_regions.home.keys()[short] == []


def test_an_upload_that_no_region_has_completely_is_not_committed(two_regions: TwoRegions) -> None:
    for region in REGIONS:
        two_regions.sinks[region].misbehave = shorten(two_regions)
    with pytest.raises(StorageUnavailable, match="whole"):
        two_regions.use(lambda storage: store(storage, an_archive()))
    assert two_regions.home.keys() == {EAST: [], WEST: []}


@pytest.mark.parametrize("refused", ("PUT", "HEAD", "nothing"))
def test_a_commit_cancelled_during_its_cleanup_leaves_nothing(
    two_regions: TwoRegions, refused: str
) -> None:
    archive = an_archive()
    cleaned: list[str] = []
    if refused == "nothing":  # an existing archive makes a cleanup necessary
        two_regions.use(lambda storage: store(storage, archive, b"first"))
    before = two_regions.home.keys("archives/")

    def reject_cleanup(method: str, target: str) -> Fault | None:
        if method == "DELETE" and not cleaned:
            cleaned.append(target)
            return Fault.HANG
        return Fault.FORBID if method == refused else None

    async def scenario(storage: RegionalStorage) -> None:
        two_regions.sinks[WEST].misbehave = reject_cleanup
        storing = asyncio.create_task(store(storage, archive, attempt="a2"))
        async with asyncio.timeout(20):
            while not cleaned:
                await asyncio.sleep(0.01)
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing

    two_regions.use(scenario)
    assert two_regions.home.keys("archives/") == before


def test_the_next_region_decides_when_the_primary_rejects_the_manifest(
    two_regions: TwoRegions,
) -> None:
    archive = an_archive()
    two_regions.sinks[EAST].misbehave = lambda method, target: (
        Fault.FORBID if method == "PUT" and "/manifests/" in target else None
    )
    with capture_logs() as logs:
        copies = two_regions.use(lambda storage: store(storage, archive))
    assert copies.regions == (WEST,)
    assert [line["region"] for line in logs if line["event"] == "commit.failed"] == [EAST]
