"""Queries to silent regions: awaited if no other region answers, skipped otherwise."""

import asyncio

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage import fan_out
from archiver.storage.region_buckets import PATIENCE, RegionQueries
from archiver.storage.regional_storage import RegionalStorage
from tests.parts.s3_fault_proxy import Fault
from tests.storage.conftest import EAST, WEST, TwoRegions, an_archive, commit_of, lease_held, stream


async def never() -> int:
    await asyncio.Event().wait()
    raise AssertionError


async def after(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 1


async def failing() -> int:
    raise StorageUnavailable("refused")


@pytest.mark.thorough
def test_a_silent_region_is_skipped_and_hardly_waited_for_again() -> None:
    ended: list[str] = []

    async def ask(queries: RegionQueries, name: str) -> None:
        answers = await queries.gather_answers({EAST: never(), WEST: after(0)})
        assert isinstance(answers[EAST], StorageUnavailable)
        assert answers[WEST] == 1
        ended.append(name)

    async def scenario() -> None:
        trusting, wary = RegionQueries(), RegionQueries()
        await ask(wary, "for the first time")
        await asyncio.gather(ask(trusting, "as long"), ask(wary, "for the second time"))

    asyncio.run(scenario())
    assert ended == ["for the first time", "for the second time", "as long"]


def test_a_region_that_answers_is_trusted_again() -> None:
    async def scenario() -> None:
        queries = RegionQueries()
        await queries.gather_answers({EAST: never(), WEST: after(0)})
        await queries.gather_answers({EAST: after(0), WEST: after(0)})
        assert await queries.gather_answers({EAST: after(0.5), WEST: after(0)}) == {
            EAST: 1,
            WEST: 1,
        }

    asyncio.run(scenario())


def test_a_failure_does_not_shorten_the_wait_for_other_regions() -> None:
    async def scenario() -> None:
        answers = await RegionQueries().gather_answers(
            {EAST: after(PATIENCE.total_seconds() + 0.2), WEST: failing()}
        )
        assert answers[EAST] == 1

    asyncio.run(scenario())


def test_cancellation_ends_all_queries() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await RegionQueries().gather_answers({EAST: never(), WEST: never()})
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("frozen", (EAST, WEST))
@pytest.mark.thorough
def test_a_frozen_region_is_dropped_after_the_lag_that_others_allow(
    two_regions: TwoRegions, frozen: Region
) -> None:
    archive = an_archive()

    async def scenario(storage: RegionalStorage) -> None:
        assert (await storage.find(archive)).unreachable == (frozen,)
        refusal = (await storage.check_writable())[frozen]
        assert refusal
        assert "other regions do" in refusal.message
        async with asyncio.timeout(fan_out.MAX_LAG.total_seconds()):  # of a large archive
            upload = await storage.upload(archive, stream(b"data"), attempt="a1")
        assert "kept the other regions waiting" in upload.failures[frozen].message
        copies = await storage.commit(
            commit_of(archive, upload, b"data"),
            prove_lease=lease_held,
        )
        assert copies.regions == tuple(r for r in (EAST, WEST) if r != frozen)

    two_regions.sinks[frozen].misbehave = lambda _method, _target: Fault.HANG
    two_regions.use(scenario)
