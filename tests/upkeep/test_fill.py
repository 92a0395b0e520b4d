"""A region is filled from the others by the workers, and a second run completes the first."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from archiver.errors import EngineUnavailable, StorageUnavailable
from archiver.model import Archive, Region
from archiver.ports.queue import WorkQueue
from archiver.tasks import Priority
from archiver.testing import MemoryWorkQueue
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.copying import Copying
from archiver.upkeep.fill import WAITING_MAX, Filler, Pace, Scope
from archiver.upkeep.filled import Filled, Tally
from tests.memory_world import World
from tests.parts.fleet import HUNG_AFTER_S, POLICY, an_archive, copies_of, running

EAST, WEST = Region("us-east-1"), Region("us-west-2")
DATA = b"bytes"
ALL = Selection()
INTO_WEST = Scope(region=WEST, selection=ALL)


@dataclass(kw_only=True)
class Bench:
    world: World = field(default_factory=World)
    reported: list[Filled] = field(default_factory=list)
    waiting: int = 0

    def store(self, *regions: Region, archive: Archive | None = None) -> Archive:
        archive = archive or an_archive()
        sha256 = hashlib.sha256(DATA).hexdigest()
        manifest = replace(copies_of(archive, sha256=sha256).manifest, size_bytes=len(DATA))
        for region in regions or (EAST,):
            self.world.storage.manifests[region][archive.key] = manifest
            self.world.storage.objects[region][manifest.object_key] = DATA
        return archive

    def has(self, archive: Archive, region: Region = WEST) -> bool:
        return archive.key in self.world.storage.manifests[region]

    async def fill(self, scope: Scope = INTO_WEST) -> Tally:
        world = self.world
        copying = Copying(
            storage=world.storage,
            index=world.index,
            queue=world.engine,
            notifications=world.notifications,
            patience=timedelta(0),
        )
        filler = Filler(
            contents=world.storage.contents,
            copying=copying,
            sources=["hgmo"],
            on_filled=self.reported.append,
            on_progress=self._note_waiting,
        )
        async with asyncio.timeout(HUNG_AFTER_S):
            await filler.run(scope)
        return filler.tally

    async def begin(self) -> asyncio.Task[Tally]:
        """Begin to fill, up to the first task."""
        filling = asyncio.create_task(self.fill())
        async with asyncio.timeout(HUNG_AFTER_S):
            while not self.world.engine.tasks:
                await asyncio.sleep(0)
        return filling

    def _note_waiting(self, _tally: Tally) -> None:
        open_tasks = [each for each in self.world.engine.tasks.values() if not each.state.terminal]
        self.waiting = max(self.waiting, len(open_tasks))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkQueue]:
        queue = MemoryWorkQueue(self.world.engine)
        async with running(queue, self.world.archiver.build, POLICY):
            try:
                yield queue
            finally:
                queue.close()

    @property
    def outcomes(self) -> dict[Archive, str]:
        return {filled.archive: filled.outcome for filled in self.reported}


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Bench())

    asyncio.run(run())


def test_workers_copy_what_the_region_lacks() -> None:
    async def scenario(bench: Bench) -> None:
        lacking = [bench.store() for _ in range(2 * WAITING_MAX)]
        bench.store(EAST, WEST)
        only_there = bench.store(WEST)
        async with bench.worker():
            tally = await bench.fill()
        assert all(map(bench.has, lacking))
        assert bench.outcomes == dict.fromkeys(lacking, "copied")
        assert (tally.copied, tally.size_bytes) == (len(lacking), len(lacking) * len(DATA))
        assert (tally.done, tally.failed) == (len(lacking) + 2, 0)
        assert not bench.has(only_there, EAST)
        assert bench.world.source.asked == Counter()

    play(scenario)


def test_only_so_many_tasks_wait_at_a_time_and_clients_come_first() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(3 * WAITING_MAX):
            bench.store()
        filling = asyncio.create_task(bench.fill())
        async with asyncio.timeout(HUNG_AFTER_S):
            while len(bench.world.engine.tasks) < WAITING_MAX:
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(bench.world.engine.tasks) == WAITING_MAX
        client = an_archive()
        await bench.world.engine.enqueue(client, client="somebody")
        first = bench.world.engine.claim(Priority.HIGH)
        assert first
        assert first.archive == client
        bench.world.engine.succeed(first)
        async with bench.worker():
            assert (await filling).copied == 3 * WAITING_MAX
        assert bench.waiting <= WAITING_MAX

    play(scenario)


def test_a_second_run_continues_an_interrupted_one() -> None:
    async def scenario(bench: Bench) -> None:
        archives = [bench.store() for _ in range(3)]
        interrupted = asyncio.create_task(bench.fill())
        async with asyncio.timeout(HUNG_AFTER_S):
            while len(bench.world.engine.tasks) < len(archives):
                await asyncio.sleep(0)
        interrupted.cancel()
        await asyncio.wait({interrupted})
        killed = bench.world.engine.claim()
        assert killed
        again = asyncio.create_task(bench.fill())
        bench.world.engine.requeue(killed.archive)  # its lease has run out
        async with bench.worker():
            await again
        assert len(bench.world.engine.tasks) == len(archives)
        assert all(map(bench.has, archives))
        assert (await bench.fill()).copied == 0

    play(scenario)


def test_an_emptied_region_is_filled_even_if_its_manifests_are_left() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store(EAST, WEST)
        bench.world.storage.objects[WEST].clear()
        async with bench.worker():
            assert (await bench.fill()).copied == 1
        assert len(bench.world.storage.objects[WEST]) == 1
        copies = await bench.world.index.copies(archive)
        assert copies
        assert copies.regions == (EAST, WEST)

    play(scenario)


def test_a_dry_run_changes_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store()
        tally = await bench.fill(replace(INTO_WEST, dry_run=True))
        assert (tally.found, tally.size_bytes) == (1, len(DATA))
        assert bench.outcomes == {archive: "found"}
        assert bench.world.untouched
        assert bench.world.index.digests == {}

    play(scenario)


def test_a_fill_can_be_limited_to_a_source_and_to_repos() -> None:
    async def scenario(bench: Bench) -> None:
        chosen = bench.store(archive=replace(an_archive(), repo="mozilla/x/y"))
        bench.store()
        bench.store(archive=replace(an_archive("git"), repo="mozilla/x"))
        async with bench.worker():
            await bench.fill(
                replace(INTO_WEST, selection=Selection(source="hgmo", repo="mozilla/*"))
            )
        assert bench.outcomes == {chosen: "copied"}

    play(scenario)


def test_archives_that_cannot_be_copied_are_named_and_the_rest_is_filled() -> None:
    async def scenario(bench: Bench) -> None:
        unserved = bench.store(archive=an_archive("retired"))
        unreadable, lost, good = bench.store(), bench.store(), bench.store()
        bench.world.storage.unreadable.add(unreadable)
        lost_key = bench.world.storage.manifests[EAST][lost.key].object_key
        del bench.world.storage.objects[EAST][lost_key]
        async with bench.worker():
            tally = await bench.fill()
        assert bench.outcomes == {
            unserved: "unknown_source",
            unreadable: "unreadable_manifest",
            lost: "lost",
            good: "copied",
        }
        assert (tally.failed, tally.unanswered) == (3, 0)
        assert {each.archive for each in bench.world.engine.tasks.values()} == {good}

    play(scenario)


def test_wrong_bytes_are_not_copied_and_end_no_run() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store()
        manifest = bench.world.storage.manifests[EAST][archive.key]
        bench.world.storage.objects[EAST][manifest.object_key] = b"wrong"
        async with bench.worker():
            tally = await bench.fill()
        assert bench.outcomes == {archive: "uncopied"}
        assert tally.failed == 1
        assert not bench.has(archive)

    play(scenario)


def test_a_region_that_takes_no_writes_ends_the_run_before_a_task() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store()
        bench.world.storage.full.add(WEST)
        with pytest.raises(StorageUnavailable):
            await bench.fill()
        assert bench.world.engine.tasks == {}
        bench.world.storage.full.clear()
        async with bench.worker():
            assert (await bench.fill()).copied == 1
        assert bench.has(archive)

    play(scenario)


def test_a_region_that_fails_during_the_copy_gets_it_by_a_later_task() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store()
        filling = await bench.begin()
        bench.world.storage.full.add(WEST)
        attempt = bench.world.engine.claim()
        assert attempt
        await bench.world.archiver.build(archive, attempt)
        bench.world.storage.full.clear()
        bench.world.engine.succeed(attempt)
        async with bench.worker():
            assert (await filling).copied == 1
        assert bench.has(archive)

    play(scenario)


def test_without_the_engine_nothing_is_filled() -> None:
    async def scenario(bench: Bench) -> None:
        bench.store()
        bench.world.engine.down = True
        with pytest.raises(EngineUnavailable):
            await bench.fill()

    play(scenario)


def test_an_outage_of_the_other_region_never_makes_a_worker_ask_the_host() -> None:
    async def scenario(bench: Bench) -> None:
        archive = bench.store()
        filling = await bench.begin()
        bench.world.storage.down.add(EAST)
        attempt = bench.world.engine.claim()
        assert attempt
        with pytest.raises(StorageUnavailable):
            await bench.world.archiver.build(archive, attempt)
        assert bench.world.source.asked == Counter()
        bench.world.storage.down.clear()
        bench.world.engine.requeue(archive)
        async with bench.worker():
            assert (await filling).copied == 1

    play(scenario)


def test_a_pace_spreads_events_evenly_and_saves_nothing_up() -> None:
    pace = Pace(30)
    assert [pace.delay_s(now) for now in (100, 100, 100)] == [0, 2, 4]
    assert [pace.delay_s(now) for now in (200, 201)] == [0, 1]
    assert [Pace(0).delay_s(1) for _ in range(2)] == [0, 0]
