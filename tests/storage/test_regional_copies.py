"""Copies from one region to another."""

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable
from archiver.model import Copies, Region, Tombstone
from archiver.storage.regional_storage import RegionalStorage
from tests.parts.s3 import S3Server
from tests.parts.s3_fault_proxy import Fault
from tests.storage.conftest import (
    EAST,
    LARGE,
    WEST,
    TwoRegions,
    an_archive,
    shorten,
    store,
)


def test_a_copy_does_not_replace_a_different_manifest(two_regions: TwoRegions) -> None:
    archive = an_archive()
    east = two_regions.use(lambda storage: store(storage, archive, b"one"), regions=(EAST,))
    west = two_regions.use(lambda storage: store(storage, archive, b"two"), regions=(WEST,))

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable):
            await storage.copy(archive, east, WEST)

    two_regions.use(scenario)

    async def find(storage: RegionalStorage) -> Copies | None:
        return (await storage.find(archive)).copies

    assert two_regions.use(find, regions=(WEST,)) == west


def test_an_archive_that_is_purged_during_its_copy_stays_away(two_regions: TwoRegions) -> None:
    archive = an_archive()
    copies = two_regions.use(lambda storage: store(storage, archive), regions=(WEST,))
    path = f"/{two_regions.home.names[WEST]}/manifests/{archive.key}.json"

    def purge_at_upload(method: str, target: str) -> None:
        if method == "PUT" and archive.file_name in target:
            two_regions.home.server.request("DELETE", path)

    two_regions.sinks[EAST].misbehave = purge_at_upload

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable, match="while it was copied"):
            await storage.copy(archive, copies, EAST)

    two_regions.use(scenario)
    assert two_regions.home.keys()[EAST] == []


def test_an_archive_that_expires_during_its_copy_keeps_the_bytes_of_links(
    two_regions: TwoRegions,
) -> None:
    """An interrupted expiry removed one manifest, so a worker copies, and the next run ends it."""
    archive = an_archive()
    copies = two_regions.use(lambda storage: store(storage, archive))
    east, west = (two_regions.home.names[region] for region in (EAST, WEST))
    manifest, tombstone = (f"{folder}/{archive.key}.json" for folder in ("manifests", "tombstones"))
    record = Tombstone.of(copies.manifest, expired_at=datetime.now(UTC))
    server = two_regions.home.server
    server.request("PUT", f"/{east}/{tombstone}", body=msgspec.json.encode(record))
    server.request("DELETE", f"/{east}/{manifest}")

    def expire_at_upload(method: str, target: str) -> None:
        if method == "PUT" and archive.file_name in target:
            server.request("DELETE", f"/{west}/{manifest}")

    two_regions.sinks[EAST].misbehave = expire_at_upload

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable, match="while it was copied"):
            await storage.copy(archive, replace(copies, regions=(WEST,)), EAST)

    two_regions.use(scenario)
    keys = two_regions.home.keys()
    assert keys[EAST] == [copies.manifest.object_key, tombstone]
    assert keys[WEST] == [copies.manifest.object_key]


def test_an_incomplete_copy_gets_no_manifest(two_regions: TwoRegions) -> None:
    archive = an_archive()
    copies = two_regions.use(lambda storage: store(storage, archive), regions=(WEST,))
    two_regions.sinks[EAST].misbehave = shorten(two_regions)

    async def scenario(storage: RegionalStorage) -> None:
        with pytest.raises(StorageUnavailable, match="3 bytes"):
            await storage.copy(archive, copies, EAST)
        assert (await storage.find(archive)).copies == copies

    two_regions.use(scenario)


def test_a_damaged_copy_is_replaced_by_the_next_regions_when_copying(weed: S3Server) -> None:
    names = tuple(Region(name) for name in ("one", "two", "three"))
    home = weed.make_home(names)
    one, two, three = home.buckets()
    archive = an_archive()

    async def scenario() -> Copies | None:
        copies = await store(RegionalStorage(buckets=[one, two]), archive)
        path = f"/{home.names[one.region]}/{copies.manifest.object_key}"
        assert weed.request("PUT", path, body=b"DATA")[0] == 200
        storage = RegionalStorage(buckets=[one, two, three])
        await storage.copy(archive, copies, three.region)
        await asyncio.sleep(0.05)
        return (await storage.find(archive)).copies

    with capture_logs() as logs:
        copies = asyncio.run(scenario())
    assert copies is not None
    assert copies.regions == names
    assert home.read(three.region, copies.manifest.object_key) == b"data"
    assert [line["region"] for line in logs if line["event"] == "copy.corrupt"] == [one.region]


def test_a_copy_that_fails_midway_leaves_no_part(two_regions: TwoRegions) -> None:
    archive, data = an_archive(), secrets.token_bytes(LARGE)
    copies = two_regions.use(lambda storage: store(storage, archive, data), regions=(WEST,))

    async def scenario(storage: RegionalStorage) -> None:
        two_regions.sinks[WEST].misbehave = lambda method, target: (
            Fault.CUT if method == "GET" and "/archives/" in target else None
        )
        with pytest.raises(StorageUnavailable):
            await storage.copy(archive, copies, EAST)

    two_regions.use(scenario)
    assert two_regions.home.keys()[EAST] == two_regions.home.unfinished()[EAST] == []
