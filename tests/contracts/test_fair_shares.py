"""The promises about clients of ``TaskQueue`` and ``Counters``, kept by the fake and by NATS."""

import asyncio
from dataclasses import replace

import pytest

from archiver.errors import TooManyTasks
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt, Standing, TaskQueue
from archiver.tasks import LIGHT_MAX, Phase, Priority, TaskState
from tests.parts.fleet import HUNG_AFTER_S, POLICY, an_archive, copies_of
from tests.parts.queue_backends import OpenStand, QueueBackend, claimed

FLOOD = 2000
"""Tasks of one client that wait when another one comes."""

MANY = 20
"""Tasks of a client that is not light, and has far fewer than the flood."""

FEW = 6
"""Builds for which the other client's task may wait: those that fill the slots, and some more."""


class Noted:
    """Admits every task, and notes each standing."""

    def __init__(self) -> None:
        self.standings: list[Standing] = []

    async def __call__(self, standing: Standing) -> None:
        self.standings.append(standing)


async def refuse(_standing: Standing) -> None:
    raise TooManyTasks("no", quota=0, retry_after=POLICY.grace)


def test_only_the_open_tasks_of_the_client_itself_count(open_stand: OpenStand) -> None:
    async def play() -> list[int]:
        noted = Noted()
        async with open_stand() as stand:
            for client in ("a", "b", "a", "", "a"):
                await stand.queue.enqueue(an_archive(), client=client, admit=noted)
        return [standing.open_tasks for standing in noted.standings]

    assert asyncio.run(play()) == [0, 0, 1, 2]


def test_the_tasks_of_all_clients_that_wait_for_the_source_are_counted(
    open_stand: OpenStand,
) -> None:
    async def play() -> list[int]:
        noted = Noted()
        async with open_stand() as stand, stand.work_queue():
            for client in ("a", "b", "a", "c", "a", "a", "a"):
                await stand.queue.enqueue(an_archive(), client=client, admit=noted)
        return [standing.waiting for standing in noted.standings]

    assert asyncio.run(play()) == [*range(7)]


def test_running_tasks_are_open_and_ended_ones_are_not(open_stand: OpenStand) -> None:
    async def play() -> list[int]:
        noted = Noted()
        async with open_stand() as stand, stand.work_queue() as work:
            await stand.queue.enqueue(an_archive(), client="a")
            lease = await claimed(work)
            await stand.queue.enqueue(an_archive(), client="a", admit=noted)
            await lease.succeed()
            async with asyncio.timeout(HUNG_AFTER_S):  # the engine forgets it with a delay
                while noted.standings[-1].open_tasks != len(noted.standings):
                    await stand.queue.enqueue(an_archive(), client="a", admit=noted)
        return [standing.open_tasks for standing in noted.standings]

    first, *_ = asyncio.run(play())
    assert first == 1


def test_a_task_that_is_joined_needs_no_admission(open_stand: OpenStand) -> None:
    async def play() -> list[EnqueueOutcome]:
        archive = an_archive()
        async with open_stand() as stand:
            await stand.queue.enqueue(archive, client="a")
            return [
                await stand.queue.enqueue(archive, client=client, admit=refuse)
                for client in ("a", "b")
            ]

    assert asyncio.run(play()) == [EnqueueOutcome.JOINED] * 2


def test_a_refused_task_is_not_created(open_stand: OpenStand) -> None:
    async def play() -> object:
        archive = an_archive()
        async with open_stand() as stand:
            with pytest.raises(TooManyTasks):
                await stand.queue.enqueue(archive, client="a", admit=refuse)
            return await stand.queue.task(archive)

    assert asyncio.run(play()) is None


def test_a_crowd_gets_its_task_although_the_first_client_is_refused(open_stand: OpenStand) -> None:
    async def play() -> list[object]:
        archive = an_archive()
        async with open_stand() as stand:
            noted = Noted()
            return await asyncio.gather(
                stand.queue.enqueue(archive, client="a", admit=refuse),
                stand.queue.enqueue(archive, client="a", admit=refuse),
                *(stand.queue.enqueue(archive, client=c, admit=noted) for c in "bcbc"),
                return_exceptions=True,
            )

    first, second, *others = asyncio.run(play())
    assert isinstance(first, TooManyTasks)
    assert isinstance(second, TooManyTasks) or second is EnqueueOutcome.JOINED
    assert others.count(EnqueueOutcome.CREATED) == 1
    assert others.count(EnqueueOutcome.JOINED) == 3


def test_concurrent_tasks_of_a_client_are_counted_one_after_the_other(
    open_stand: OpenStand,
) -> None:
    async def play() -> list[int]:
        noted = Noted()
        async with open_stand() as stand:
            await asyncio.gather(
                *(stand.queue.enqueue(an_archive(), client="a", admit=noted) for _ in range(20))
            )
        return [standing.open_tasks for standing in noted.standings]

    assert asyncio.run(play()) == [*range(20)]


async def _flood(queue: TaskQueue, count: int) -> list[Archive]:
    """Create tasks of one client, and return their archives in the order of creation."""
    archives = [an_archive() for _ in range(count)]
    await asyncio.gather(*(queue.enqueue(archive, client="flood") for archive in archives))
    return archives


@pytest.mark.thorough
def test_a_flood_of_one_client_delays_the_task_of_another_by_a_few_builds(
    open_stand: OpenStand,
) -> None:
    """Law 11."""
    others = [an_archive() for _ in range(LIGHT_MAX)]
    built: list[Archive] = []
    gate = asyncio.Semaphore(0)

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        await gate.acquire()
        built.append(archive)
        return copies_of(archive)

    async def let_one_build() -> None:
        before = len(built)
        gate.release()
        async with asyncio.timeout(HUNG_AFTER_S):
            while len(built) == before:
                await asyncio.sleep(0.01)

    async def play(stand: QueueBackend) -> list[int]:
        await _flood(stand.queue, FLOOD)
        async with stand.worker(build, policy=replace(POLICY, concurrency=2)):
            for _ in range(3):
                await let_one_build()
            before = []
            for other in others:
                before.append(len(built))
                await stand.queue.enqueue(other, client="other")
                while other not in built:
                    await let_one_build()
                await stand.until(other, TaskState.SUCCESS)
            for _ in range(FLOOD):  # the worker ends after the builds that have begun
                gate.release()
        return [built.index(o) - b for o, b in zip(others, before, strict=True)]

    async def opened() -> list[int]:
        async with open_stand() as stand:
            return await play(stand)

    assert max(asyncio.run(opened())) <= FEW


@pytest.mark.parametrize("flood", (200, pytest.param(FLOOD, marks=pytest.mark.thorough)))
def test_clients_with_many_tasks_take_turns(open_stand: OpenStand, flood: int) -> None:
    """Law 11."""
    others = {an_archive() for _ in range(MANY)}
    built: list[Archive] = []

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        attempt.report(Phase.COMMITTING)
        built.append(archive)
        await asyncio.sleep(0.01)
        return copies_of(archive)

    async def play() -> int:
        async with open_stand() as stand:
            await _flood(stand.queue, flood)
            async with stand.worker(build, policy=replace(POLICY, concurrency=2)):
                async with asyncio.timeout(HUNG_AFTER_S):
                    while len(built) < 3:
                        await asyncio.sleep(0.01)
                    for other in others:
                        await stand.queue.enqueue(other, client="other")
                    before = len(built)
                    while not others.issubset(built):
                        await asyncio.sleep(0.01)
            return len([one for one in built[before:] if one not in others])

    assert asyncio.run(play()) <= 2 * MANY + FEW


@pytest.mark.parametrize("flood", (200, pytest.param(FLOOD, marks=pytest.mark.thorough)))
def test_a_flood_for_the_archive_of_another_client_delays_it_by_a_few_builds(
    open_stand: OpenStand, flood: int
) -> None:
    """Law 11."""
    built: list[Archive] = []

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive)
        await asyncio.sleep(0.01)
        return copies_of(archive)

    async def play() -> int:
        async with open_stand() as stand:
            *_, wanted = await _flood(stand.queue, flood)
            async with stand.worker(build, policy=replace(POLICY, concurrency=2)):
                async with asyncio.timeout(HUNG_AFTER_S):
                    while len(built) < 3:
                        await asyncio.sleep(0.01)
                before = len(built)
                outcome = await stand.queue.enqueue(wanted, client="other")
                assert outcome is EnqueueOutcome.JOINED
                await stand.until(wanted, TaskState.SUCCESS)
            return built.index(wanted) - before

    assert asyncio.run(play()) <= FEW


def test_a_client_that_joins_many_tasks_hastens_as_many_as_it_could_create(
    open_stand: OpenStand,
) -> None:
    """Law 11."""
    count, built = 3 * MANY, list[Archive]()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive)
        return copies_of(archive)

    async def play() -> set[Archive]:
        async with open_stand() as stand:
            joined = (await _flood(stand.queue, count))[-MANY:]
            outcomes = await asyncio.gather(
                *(stand.queue.enqueue(archive, client="other") for archive in joined)
            )
            assert {*outcomes} == {EnqueueOutcome.JOINED}
            async with stand.worker(build, policy=replace(POLICY, concurrency=1)):
                async with asyncio.timeout(HUNG_AFTER_S):
                    while len(built) < count:
                        await asyncio.sleep(0.01)
            return {*joined}

    joined = asyncio.run(play())
    assert len(joined.intersection(built[:MANY])) == LIGHT_MAX
    assert len({*built}) == len(built) == count


def test_a_client_with_many_tasks_hastens_none(open_stand: OpenStand) -> None:
    count, built = 3 * MANY, list[Archive]()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive)
        return copies_of(archive)

    async def play() -> Archive:
        async with open_stand() as stand:
            *_, wanted = await _flood(stand.queue, count)
            for _ in range(LIGHT_MAX):
                await stand.queue.enqueue(an_archive(), client="other")
            await stand.queue.enqueue(wanted, client="other")
            async with stand.worker(build, policy=replace(POLICY, concurrency=1)):
                async with asyncio.timeout(HUNG_AFTER_S):
                    while wanted not in built:
                        await asyncio.sleep(0.01)
            return wanted

    assert built.index(asyncio.run(play())) > 2 * MANY


def test_the_backlog_of_a_light_client_is_not_that_of_a_flood(open_stand: OpenStand) -> None:
    light, heavy, hold = an_archive(), an_archive(), asyncio.Event()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        await hold.wait()
        return copies_of(archive)

    async def play() -> tuple[int, int]:
        async with open_stand() as stand:
            await _flood(stand.queue, 40)
            await stand.queue.enqueue(heavy, client="flood")
            async with stand.worker(build, policy=replace(POLICY, concurrency=1)):
                await stand.queue.enqueue(light, client="other")
                async with asyncio.timeout(HUNG_AFTER_S):
                    while not (before := await stand.queue.backlog(heavy)) or before.waiting < 30:
                        await asyncio.sleep(0.01)
                waiting = await stand.queue.backlog(light)
                hold.set()
                assert waiting
                return waiting.waiting, before.waiting

    light_waiting, heavy_waiting = asyncio.run(play())
    assert light_waiting <= LIGHT_MAX + 1
    assert heavy_waiting <= 41


def test_repairs_and_the_flood_itself_go_on(open_stand: OpenStand) -> None:
    repair, built = an_archive(), list[Archive]()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        built.append(archive)
        return copies_of(archive)

    async def play() -> None:
        async with open_stand() as stand:
            await _flood(stand.queue, 40)
            await stand.queue.enqueue(repair, priority=Priority.LOW)
            async with stand.worker(build, policy=replace(POLICY, concurrency=1)):
                async with asyncio.timeout(HUNG_AFTER_S):
                    while len(built) < 41:
                        await asyncio.sleep(0.01)

    asyncio.run(play())
    assert built.index(repair) < 20


def test_events_are_counted_per_kind_client_and_minute(open_stand: OpenStand) -> None:
    async def play() -> list[int]:
        async with open_stand() as stand:
            count = stand.counters.count
            return [
                await count("tasks", "a", minute=7),
                await count("tasks", "a", minute=7),
                await count("lookups", "a", minute=7),
                await count("tasks", "b * >.", minute=7),
                await count("tasks", "a", minute=8),
                await count("tasks", "a", minute=7),
            ]

    assert asyncio.run(play()) == [1, 2, 1, 1, 1, 3]


def test_concurrent_events_are_all_counted(open_stand: OpenStand) -> None:
    async def play() -> list[int]:
        async with open_stand() as stand:
            counting = (stand.counters.count("tasks", "a", minute=1) for _ in range(30))
            return sorted(await asyncio.gather(*counting))

    assert asyncio.run(play()) == [*range(1, 31)]
