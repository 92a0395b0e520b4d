"""Whether a region accepts writes: proven by a recent write, or by a probe."""

import asyncio
from datetime import timedelta

import pytest

from archiver.errors import StorageUnavailable
from archiver.storage.regional_storage import RegionalStorage
from archiver.storage.write_probe import WriteProbe
from tests.parts.s3_fault_proxy import Fault
from tests.storage.conftest import EAST, WEST, TwoRegions, an_archive, store, stream


def probes(two_regions: TwoRegions) -> int:
    """Return the number of probes written to the eastern region."""
    asked = two_regions.sinks[EAST].requests
    return sum(method == "PUT" and "/probes/" in target for method, target in asked)


def test_concurrent_callers_share_one_probe_and_its_result_is_cached(
    two_regions: TwoRegions,
) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        for answers in await asyncio.gather(*(storage.check_writable() for _ in range(20))):
            assert answers == {EAST: None, WEST: None}
        await storage.check_writable()

    two_regions.use(scenario)
    assert probes(two_regions) == 1


@pytest.mark.parametrize(("ttl", "probed"), ((timedelta(0), 2), (timedelta(hours=1), 1)))
def test_a_proof_expires_after_its_ttl(ttl: timedelta, probed: int) -> None:
    probes: list[str] = []

    async def scenario() -> None:
        async def put_probe() -> None:
            with probe.record_write():
                probes.append("written")

        probe = WriteProbe(probe=put_probe, ttl=ttl)
        await probe.require_writable()
        await probe.require_writable()

    asyncio.run(scenario())
    assert len(probes) == probed


def test_a_stored_archive_replaces_the_probe(two_regions: TwoRegions) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        await store(storage, an_archive())
        await storage.check_writable()

    two_regions.use(scenario)
    assert probes(two_regions) == 0


def test_a_failed_write_revokes_the_proof(two_regions: TwoRegions) -> None:
    async def scenario(storage: RegionalStorage) -> None:
        await store(storage, an_archive())
        two_regions.sinks[EAST].misbehave = lambda method, _: (
            Fault.FORBID if method == "PUT" else None
        )
        await storage.upload(an_archive(), stream(b"data"), attempt="a1")
        refused = (await storage.check_writable())[EAST]
        assert isinstance(refused, StorageUnavailable)
        assert refused.s3_code == "AccessDenied"
        two_regions.sinks[EAST].misbehave = lambda _method, _target: None
        assert (await storage.check_writable())[EAST] is None  # a rejection is not cached

    two_regions.use(scenario)
    assert probes(two_regions) == 2
