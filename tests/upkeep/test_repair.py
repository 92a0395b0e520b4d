"""Missing copies get a task once their region answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from archiver.model import Archive, Copies, Region
from archiver.ports.queue import Attempt
from archiver.runtime.tasks import in_background
from archiver.testing import MemoryStorage
from archiver.upkeep.repair import Repairer
from archiver.worker.worker import Build
from tests.parts.fleet import HUNG_AFTER_S, an_archive, copies_of
from tests.parts.queue_backends import OpenStand, QueueBackend

TWO = Region("two")


@asynccontextmanager
async def repairing(
    stand: QueueBackend, storage: MemoryStorage, build: Build
) -> AsyncIterator[None]:
    repairer = Repairer(
        repairs=stand.repairs,
        queue=stand.queue,
        storage=storage,
        interval=timedelta(seconds=0.1),
    )
    async with in_background(repairer.keep_sweeping()), stand.worker(build):
        yield


def test_a_repair_waits_for_its_region_and_then_becomes_a_task(open_stand: OpenStand) -> None:
    built: list[str] = []

    async def play() -> tuple[int, int]:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        storage.down.add(TWO)
        async with open_stand() as stand:

            async def build(archive: Archive, _attempt: Attempt) -> Copies:
                built.append(archive.key)
                await stand.repairs.forget(archive)
                return copies_of(archive, "one", "two")

            async with repairing(stand, storage, build):
                await stand.repairs.add(archive, [TWO])
                await asyncio.sleep(0.5)
                while_down = len(built)
                storage.down.clear()
                async with asyncio.timeout(HUNG_AFTER_S):
                    while not built:
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0.5)
        return while_down, len(built)

    assert asyncio.run(play()) == (0, 1)


@pytest.mark.thorough
def test_a_repair_that_does_not_help_is_retried_less_often(open_stand: OpenStand) -> None:
    built: list[str] = []

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive.key)
        return copies_of(archive, "one")

    async def play() -> int:
        storage = MemoryStorage(regions=("one", "two"))
        async with open_stand() as stand, repairing(stand, storage, build):
            await stand.repairs.add(an_archive(), [TWO])
            await asyncio.sleep(2)
        return len(built)

    assert 2 <= asyncio.run(play()) <= 6  # at 0, 0.1, 0.3, 0.7, 1.5 s; not every 0.1 s
