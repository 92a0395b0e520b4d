"""Missing copies get a task once their region answers."""

import asyncio

from archiver.model import Archive, Copies, Region
from archiver.ports.queue import Attempt
from archiver.testing import MemoryStorage
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive, copies_of


def test_a_repair_waits_for_its_region_and_then_becomes_a_task(fleet: Fleet) -> None:
    built: list[str] = []

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive.key)
        async with fleet.repairs() as repairs:
            await repairs.forget(archive)
        return copies_of(archive, "one", "two")

    async def play() -> tuple[int, int]:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        storage.down.add(Region("two"))
        async with fleet.repairs() as repairs, fleet.worker(build, storage=storage):
            await repairs.note(archive, [Region("two")])
            await asyncio.sleep(0.5)
            while_down = len(built)
            storage.down.clear()
            async with asyncio.timeout(HUNG_AFTER_S):
                while not built:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
        return while_down, len(built)

    assert asyncio.run(play()) == (0, 1)


def test_a_repair_that_does_not_help_is_retried_less_often(fleet: Fleet) -> None:
    built: list[str] = []

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive.key)
        return copies_of(archive, "one")

    async def play() -> int:
        storage, archive = MemoryStorage(regions=("one", "two")), an_archive()
        async with fleet.repairs() as repairs, fleet.worker(build, storage=storage):
            await repairs.note(archive, [Region("two")])
            await asyncio.sleep(2)
        return len(built)

    assert 2 <= asyncio.run(play()) <= 6  # at 0, 0.1, 0.3, 0.7, 1.5 s; not every 0.1 s
