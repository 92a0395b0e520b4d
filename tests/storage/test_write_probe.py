"""Whether a region takes writes: proven by writes, and asked for only where there were none."""

import asyncio
from datetime import timedelta

import pytest

from archiver.errors import StorageUnavailable
from archiver.storage.regional_storage import RegionalStorage
from archiver.storage.write_probe import WriteProbe
from tests.parts.sink import Fault
from tests.storage.conftest import EAST, WEST, Coast, an_archive, store, stream


def probes(coast: Coast) -> int:
    """Return how many small objects were written to the eastern region to prove something."""
    asked = coast.sinks[EAST].requests
    return sum(method == "PUT" and "/probes/" in target for method, target in asked)


def test_one_probe_answers_all_who_ask_and_is_believed_for_a_while(coast: Coast) -> None:
    async def scenario(regions: RegionalStorage) -> None:
        for answers in await asyncio.gather(*(regions.check_writable() for _ in range(20))):
            assert answers == {EAST: None, WEST: None}
        await regions.check_writable()

    coast.use(scenario)
    assert probes(coast) == 1


@pytest.mark.parametrize(("ttl", "probed"), ((timedelta(0), 2), (timedelta(hours=1), 1)))
def test_a_proof_is_ttl_as_long_as_it_is_said(ttl: timedelta, probed: int) -> None:
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


def test_an_archive_that_was_stored_is_proof_enough(coast: Coast) -> None:
    async def scenario(regions: RegionalStorage) -> None:
        await store(regions, an_archive())
        await regions.check_writable()

    coast.use(scenario)
    assert probes(coast) == 0


def test_a_write_that_fails_ends_the_proof_of_those_before(coast: Coast) -> None:
    async def scenario(regions: RegionalStorage) -> None:
        await store(regions, an_archive())
        coast.sinks[EAST].misbehave = lambda method, _: Fault.FORBID if method == "PUT" else None
        await regions.upload(an_archive(), stream(b"data"), attempt="a1")
        refused = (await regions.check_writable())[EAST]
        assert isinstance(refused, StorageUnavailable)
        assert refused.s3_code == "AccessDenied"
        coast.sinks[EAST].misbehave = lambda _method, _target: None
        assert (await regions.check_writable())[
            EAST
        ] is None  # a refusal is not believed for longer

    coast.use(scenario)
    assert probes(coast) == 2
