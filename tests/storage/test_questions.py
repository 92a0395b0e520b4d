"""A region that is silent: waited for when it is alone, left out when others answer."""

import asyncio
import time

import pytest

from archiver.errors import StorageUnavailable
from archiver.storage.questions import PATIENCE, Questions
from archiver.storage.regions import Regions
from archiver.storage.tee import LEAST_PATIENCE
from tests.parts.sink import Fault
from tests.storage.conftest import EAST, WEST, Coast, an_archive, store


async def never() -> int:
    await asyncio.Event().wait()
    raise AssertionError


async def after(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 1


async def failing() -> int:
    raise StorageUnavailable("refused")


def test_a_silent_region_is_left_out_and_hardly_waited_for_again() -> None:
    async def scenario() -> tuple[float, float]:
        questions = Questions()
        took = []
        for _ in range(2):
            began = time.monotonic()
            answers = await questions.ask({EAST: never(), WEST: after(0)})
            assert isinstance(answers[EAST], StorageUnavailable)
            assert answers[WEST] == 1
            took.append(time.monotonic() - began)
        return took[0], took[1]

    first, second = asyncio.run(scenario())
    assert second < first
    assert second < PATIENCE.total_seconds() <= first


def test_a_region_that_answers_is_waited_for_as_before() -> None:
    async def scenario() -> None:
        questions = Questions()
        await questions.ask({EAST: never(), WEST: after(0)})
        await questions.ask({EAST: after(0), WEST: after(0)})
        assert await questions.ask({EAST: after(0.5), WEST: after(0)}) == {EAST: 1, WEST: 1}

    asyncio.run(scenario())


def test_a_failure_is_no_answer_that_others_are_left_out_for() -> None:
    async def scenario() -> None:
        answers = await Questions().ask(
            {EAST: after(PATIENCE.total_seconds() + 0.2), WEST: failing()}
        )
        assert answers[EAST] == 1

    asyncio.run(scenario())


def test_a_caller_that_is_cancelled_leaves_no_question_behind() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Questions().ask({EAST: never(), WEST: never()})
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("frozen", (EAST, WEST))
def test_a_frozen_region_costs_a_small_archive_seconds_and_no_more(
    coast: Coast, frozen: str
) -> None:
    archive = an_archive()

    async def scenario(regions: Regions) -> float:
        began = time.monotonic()
        found = await regions.find(archive)
        await regions.writable()
        assert found.unreachable == (frozen,)
        copies = await store(regions, archive)  # told to avoid nothing, as if it froze just now
        assert copies.regions == tuple(r for r in (EAST, WEST) if r != frozen)
        return time.monotonic() - began

    (region,) = (region for region in coast.sinks if region == frozen)
    coast.sinks[region].misbehave = lambda _method, _target: Fault.HANG
    assert coast.use(scenario) < 2 * LEAST_PATIENCE.total_seconds() + 2 * PATIENCE.total_seconds()
