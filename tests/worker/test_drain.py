"""How a worker drains, on the fake queue and on the real one."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt, WorkQueue
from archiver.tasks import TaskState
from archiver.worker.activity import Activity
from archiver.worker.worker import Policy, Worker
from tests.parts.fleet import CAPS, HUNG_AFTER_S, LEASE, POLICY, an_archive, copies_of, running
from tests.parts.queue_backends import OpenStand, QueueBackend

NO_GRACE = replace(POLICY, grace=timedelta(0))
LONG_GRACE = replace(POLICY, grace=timedelta(hours=1))


class Site:
    """Builds that end when ``finish`` is set. ``built`` has the archives of those that began."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.cancelled = 0
        self.built: list[Archive] = []

    async def build(self, archive: Archive, _attempt: Attempt) -> Copies:
        self.built.append(archive)
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return copies_of(archive)


async def started(stand: QueueBackend) -> Archive:
    archive = an_archive()
    await stand.queue.enqueue(archive)
    await stand.until(archive, TaskState.STARTED)
    return archive


async def drains(logs: list[EventDict]) -> None:
    """Wait until a worker has closed its queue."""
    async with asyncio.timeout(HUNG_AFTER_S):
        while "worker.draining" not in [line["event"] for line in logs]:
            await asyncio.sleep(0.01)


def test_a_draining_worker_finishes_what_it_has_and_takes_nothing_new(
    open_stand: OpenStand,
) -> None:
    """Another worker gets what comes later."""

    async def play() -> None:
        site, activity, other = Site(), Activity(), Site()
        other.finish.set()
        async with open_stand() as stand:
            async with (
                stand.open_work_queue(caps=CAPS, lease=LEASE) as queue,
                asyncio.TaskGroup() as group,
            ):
                worker = group.create_task(_run(queue, site, activity))
                first = await started(stand)
                assert activity.running == (first.task_id,)
                activity.drain()
                await drains(logs)
                second = an_archive()
                async with stand.worker(other.build):
                    await stand.queue.enqueue(second)
                    await stand.until(second, TaskState.SUCCESS)
                assert not worker.done()
                site.finish.set()
                await stand.until(first, TaskState.SUCCESS)
                async with asyncio.timeout(HUNG_AFTER_S):
                    await worker
            assert not activity.running
            assert (site.built, other.built) == ([first], [second])

    with capture_logs() as logs:
        asyncio.run(play())


async def _run(queue: WorkQueue, site: Site, activity: Activity) -> None:
    """Run a worker without a grace period until it has drained or was stopped."""
    worker = Worker(build=site.build, queue=queue, policy=NO_GRACE, activity=activity)
    await worker.work()


def test_a_worker_without_attempts_drains_at_once(open_stand: OpenStand) -> None:
    async def play() -> None:
        activity = Activity()
        async with open_stand() as stand, stand.open_work_queue(caps=CAPS, lease=LEASE) as queue:
            activity.drain()
            async with asyncio.timeout(HUNG_AFTER_S):
                await _run(queue, Site(), activity)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("policy", "begin"), ((NO_GRACE, Activity.drain), (LONG_GRACE, Activity.stop))
)
def test_a_signal_ends_a_drain_and_a_long_grace_and_hands_tasks_back(
    open_stand: OpenStand, policy: Policy, begin: Callable[[Activity], None]
) -> None:
    async def play() -> None:
        site, activity = Site(), Activity()
        async with open_stand() as stand:
            async with (
                stand.open_work_queue(caps=CAPS, lease=timedelta(hours=1)) as queue,
                running(queue, site.build, policy, activity),
            ):
                archive = await started(stand)
                begin(activity)
                await drains(logs)
                assert site.cancelled == 0
            assert site.cancelled == 1  # the end of the block was the signal
            task = await stand.until(archive, TaskState.RETRY)
            assert task.failures == 0

    with capture_logs() as logs:
        asyncio.run(play())


def test_builds_that_end_within_the_grace_are_not_handed_back(open_stand: OpenStand) -> None:
    async def play() -> None:
        site, activity = Site(), Activity()
        async with (
            open_stand() as stand,
            stand.open_work_queue(caps=CAPS, lease=LEASE) as queue,
            asyncio.timeout(HUNG_AFTER_S),
            running(queue, site.build, LONG_GRACE, activity),
        ):
            archive = await started(stand)
            activity.stop()
            site.finish.set()
            await stand.until(archive, TaskState.SUCCESS)

    asyncio.run(play())
