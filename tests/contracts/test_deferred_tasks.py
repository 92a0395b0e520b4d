"""The promises about tasks without urgency of ``TaskQueue``, kept by the fake and by NATS."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from archiver.errors import NotFound, TooManyTasks, UnknownRepo, UnknownRev
from archiver.model import Archive, Copies, EnqueueOutcome
from archiver.ports.queue import Attempt, Standing, TaskQueue
from archiver.tasks import LIGHT_MAX, TaskState, Urgency
from tests.parts.fleet import HUNG_AFTER_S, POLICY, an_archive, copies_of
from tests.parts.queue_backends import OpenStand

LATER = Urgency.LATER
CREATED, JOINED = EnqueueOutcome.CREATED, EnqueueOutcome.JOINED
ONE_AT_A_TIME = replace(POLICY, concurrency=1)


@dataclass(kw_only=True)
class Builds:
    """Notes the archives in the order of their builds. Each build waits for *go*."""

    built: list[Archive] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, archive: Archive, _attempt: Attempt) -> Copies:
        self.built.append(archive)
        await self.go.wait()
        return copies_of(archive)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(HUNG_AFTER_S):
            while len(self.built) < count:
                await asyncio.sleep(0.01)


async def deferred(queue: TaskQueue, count: int, client: str = "prewarm") -> list[Archive]:
    archives = [an_archive() for _ in range(count)]
    for archive in archives:
        assert await queue.enqueue(archive, client=client, urgency=LATER) is CREATED
    return archives


def places(built: list[Archive], archives: Iterable[Archive]) -> list[int]:
    return sorted(map(built.index, archives))


def test_deferred_tasks_are_built_while_nothing_else_waits(open_stand: OpenStand) -> None:
    async def play() -> None:
        builds = Builds()
        builds.go.set()
        async with open_stand() as stand:
            archives = await deferred(stand.queue, 10)
            task = await stand.queue.task(archives[0])
            assert task
            assert task.state is TaskState.PENDING
            async with stand.worker(builds):
                for archive in archives:
                    await stand.until(archive, TaskState.SUCCESS)
        assert sorted(builds.built, key=archives.index) == archives

    asyncio.run(play())


def test_a_later_task_of_a_client_comes_before_all_that_are_deferred(open_stand: OpenStand) -> None:
    async def play() -> None:
        builds = Builds()
        async with open_stand() as stand, stand.worker(builds, policy=ONE_AT_A_TIME):
            before = await deferred(stand.queue, 20)
            await builds.until(1)
            wanted = [an_archive() for _ in range(LIGHT_MAX + 2)]
            for archive in wanted:
                await stand.queue.enqueue(archive, client="a")
            builds.go.set()
            await builds.until(len(before) + len(wanted))
        # One was running, and one may have been on its way to the worker.
        assert places(builds.built, wanted)[-1] <= len(wanted) + 1

    asyncio.run(play())


@pytest.mark.parametrize("client", ("other", "prewarm"))
def test_a_deferred_task_that_is_requested_becomes_one_of_that_client(
    open_stand: OpenStand, client: str
) -> None:
    counts: list[int] = []

    async def admit(standing: Standing) -> None:
        counts.append(standing.open_tasks)

    async def play() -> None:
        builds = Builds()
        builds.go.set()
        async with open_stand() as stand:
            *_, wanted = await deferred(stand.queue, 12)
            assert await stand.queue.enqueue(wanted, client=client) is JOINED
            await stand.queue.enqueue(an_archive(), client="other", admit=admit)
            async with stand.worker(builds, policy=ONE_AT_A_TIME):
                await builds.until(13)
        assert builds.built.index(wanted) <= 2
        assert len({*builds.built}) == 13

    asyncio.run(play())
    assert counts == [client == "other"]


def test_a_client_with_many_tasks_gets_a_deferred_one_in_its_turn(open_stand: OpenStand) -> None:
    async def play() -> None:
        builds = Builds()
        builds.go.set()
        async with open_stand() as stand:
            *_, wanted = await deferred(stand.queue, 30)
            for _ in range(LIGHT_MAX):
                await stand.queue.enqueue(an_archive(), client="a")
            assert await stand.queue.enqueue(wanted, client="a") is JOINED
            async with stand.worker(builds, policy=ONE_AT_A_TIME):
                await builds.until(30 + LIGHT_MAX)
        assert builds.built.index(wanted) <= LIGHT_MAX + 3

    asyncio.run(play())


def test_a_deferred_request_leaves_a_task_where_it_is(open_stand: OpenStand) -> None:
    async def play() -> None:
        builds = Builds()
        async with open_stand() as stand, stand.worker(builds, policy=ONE_AT_A_TIME):
            await stand.queue.enqueue(urgent := an_archive(), client="a")
            await builds.until(1)
            archives = await deferred(stand.queue, 8)
            for archive in (urgent, archives[-1]):
                outcome = await stand.queue.enqueue(archive, client="other", urgency=LATER)
                assert outcome is JOINED
            builds.go.set()
            await builds.until(9)
        assert builds.built.index(archives[-1]) == 8

    asyncio.run(play())


def test_the_clients_of_deferred_tasks_take_turns(open_stand: OpenStand) -> None:
    async def play() -> None:
        builds = Builds()
        builds.go.set()
        async with open_stand() as stand:
            await deferred(stand.queue, 30, "a")
            few = await deferred(stand.queue, 3, "b")
            async with stand.worker(builds, policy=ONE_AT_A_TIME):
                await builds.until(33)
        assert places(builds.built, few)[-1] <= 8

    asyncio.run(play())


def test_a_deferred_task_may_be_refused(open_stand: OpenStand) -> None:
    standings: list[Standing] = []

    async def refuse(standing: Standing) -> None:
        standings.append(standing)
        raise TooManyTasks("no", quota=0, retry_after=POLICY.grace)

    async def play() -> None:
        async with open_stand() as stand, stand.work_queue():
            await deferred(stand.queue, 3)
            with pytest.raises(TooManyTasks):
                await stand.queue.enqueue(
                    an_archive(), client="prewarm", admit=refuse, urgency=LATER
                )

    asyncio.run(play())
    assert [standing.open_tasks for standing in standings] == [3]
    assert standings[0].waiting >= 1


@pytest.mark.parametrize(
    ("urgency", "error", "builds"),
    (
        (Urgency.ANNOUNCED, UnknownRev("no such changeset"), 2),
        (Urgency.ANNOUNCED, UnknownRepo("no such repo"), 1),
        (Urgency.LATER, UnknownRev("no such changeset"), 1),
        (Urgency.NOW, UnknownRev("no such changeset"), 1),
    ),
)
def test_only_a_changeset_that_the_host_has_announced_is_awaited(
    open_stand: OpenStand, urgency: Urgency, error: NotFound, builds: int
) -> None:
    """The servers of a host may not all have a changeset at the moment of its push."""
    attempts = 0

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        nonlocal attempts
        attempts += 1
        if attempts < 2:
            raise error
        return copies_of(archive)

    async def play() -> TaskState:
        async with open_stand() as stand, stand.worker(build):
            archive = an_archive()
            await stand.queue.enqueue(archive, client="hook", urgency=urgency)
            async with asyncio.timeout(HUNG_AFTER_S):
                while not (task := await stand.queue.task(archive)) or not task.state.terminal:
                    await asyncio.sleep(0.01)
            return task.state

    ended = asyncio.run(play())
    assert ended is (TaskState.SUCCESS if builds > 1 else TaskState.FAILURE)
    assert attempts == builds
