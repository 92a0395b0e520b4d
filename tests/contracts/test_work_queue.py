"""The promises of ``WorkQueue`` and ``Lease``, kept by the fake and by the real queue."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import LeaseLost
from archiver.model import EnqueueOutcome
from archiver.ports.queue import OutageHistory
from archiver.runtime.tasks import cancel_and_wait
from archiver.tasks import Phase, Priority, TaskState
from tests.parts.fleet import LEASE, Busy, Outage, Refused, an_archive
from tests.parts.queue_backends import OpenStand, claimed

NOW = timedelta(0)


def test_a_claim_waits_for_a_task_and_starts_it(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            claiming = asyncio.create_task(claimed(queue))
            await asyncio.sleep(0.1)
            assert not claiming.done()
            await stand.queue.enqueue(archive)
            lease = await claiming
            assert (lease.archive, lease.attempt, lease.failures, lease.vanished) == (
                archive,
                1,
                0,
                0,
            )
            assert (lease.phase, lease.is_open) == (Phase.CONNECTING, True)
            task = await stand.until(archive, TaskState.STARTED)
            assert (task.attempt, task.phase) == (1, Phase.CONNECTING)

    asyncio.run(play())


def test_tasks_of_all_priorities_are_claimed(open_stand: OpenStand) -> None:
    async def play() -> None:
        archives = [an_archive() for _ in Priority]
        async with open_stand() as stand, stand.work_queue() as queue:
            for archive, priority in zip(archives, Priority, strict=True):
                await stand.queue.enqueue(archive, priority=priority)
            leases = [await claimed(queue) for _ in archives]
            assert {lease.archive.key for lease in leases} == {a.key for a in archives}
            assert len({lease.id for lease in leases}) == len(Priority)

    asyncio.run(play())


def test_a_claimed_task_is_joined_and_not_claimed_again(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            await claimed(queue)
            assert await stand.queue.enqueue(archive) is EnqueueOutcome.JOINED
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await queue.claim()

    asyncio.run(play())


def test_a_lease_that_runs_out_goes_to_another_claim_and_fences_the_first(
    open_stand: OpenStand,
) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            silent, other = await claimed(queue), await claimed(queue)
            assert (other.attempt, other.vanished, other.failures) == (2, 1, 0)
            with pytest.raises(LeaseLost):
                await silent.prove_lease()
            with pytest.raises(LeaseLost):
                await silent.fail(Busy("too late"))
            with pytest.raises(LeaseLost):
                await silent.succeed()
            await other.prove_lease()
            await other.succeed()
            assert (await stand.until(archive, TaskState.SUCCESS)).attempt == 2

    asyncio.run(play())


@pytest.mark.thorough
def test_an_attempt_that_reports_in_vain_learns_that_its_lease_is_lost(
    open_stand: OpenStand,
) -> None:
    async def play() -> None:
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(an_archive())
            silent, other = await claimed(queue), await claimed(queue)
            silent.report(Phase.FETCHING, 1)
            with pytest.raises(LeaseLost):
                await silent.keep_renewed()
            await other.prove_lease()

    asyncio.run(play())


@pytest.mark.thorough
def test_a_renewed_lease_is_kept(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            lease = await claimed(queue)
            renewing = asyncio.create_task(lease.keep_renewed())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * LEASE.total_seconds()):
                    await queue.claim()
            await cancel_and_wait(renewing)
            await lease.succeed()
            assert (await stand.until(archive, TaskState.SUCCESS)).attempt == 1

    asyncio.run(play())


def test_a_retry_counts_a_failure_and_comes_after_its_delay(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive, delay = an_archive(), timedelta(seconds=1)
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            lease, began = await claimed(queue), datetime.now(UTC)
            await lease.retry(Busy("the host is busy"), after=delay)
            assert not lease.is_open
            task = await stand.until(archive, TaskState.RETRY)
            assert task.error
            assert (task.error.code, task.failures, task.phase) == ("busy", 1, Phase.WAITING)
            lease = await claimed(queue)
            assert datetime.now(UTC) - began >= delay
            assert (lease.attempt, lease.failures, lease.vanished) == (2, 1, 0)

    asyncio.run(play())


def test_waiting_for_an_outage_counts_no_failure_and_is_remembered(
    open_stand: OpenStand,
) -> None:
    outages = OutageHistory(since=datetime.now(UTC), spoiled=2)

    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            lease = await claimed(queue)
            assert lease.outages == OutageHistory()
            await lease.postpone(Outage("our disks are away"), outages=outages, after=NOW)
            lease = await claimed(queue)
            assert (lease.failures, lease.outages) == (0, outages)
            await lease.retry(Busy("the host is busy"), after=NOW)
            assert (await claimed(queue)).outages == OutageHistory(spoiled=2)

    asyncio.run(play())


def test_a_task_that_is_handed_back_is_claimed_at_once_and_has_no_error(
    open_stand: OpenStand,
) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue(lease=timedelta(hours=1)) as queue:
            await stand.queue.enqueue(archive)
            await (await claimed(queue)).retry(Busy("the host is busy"), after=NOW)
            await (await claimed(queue)).hand_back()
            task = await stand.until(archive, TaskState.RETRY)
            assert (task.failures, task.error) == (1, None)
            lease = await claimed(queue)
            assert (lease.attempt, lease.failures, lease.vanished) == (3, 1, 0)

    asyncio.run(play())


def test_a_task_that_failed_is_not_claimed_again_but_can_be_created_again(
    open_stand: OpenStand,
) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            lease = await claimed(queue)
            await lease.fail(Refused("no"))
            assert not lease.is_open
            task = await stand.until(archive, TaskState.FAILURE)
            assert task.error
            assert (task.error.code, task.failures) == ("refused", 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(LEASE.total_seconds() + 0.5):
                    await queue.claim()
            assert await stand.queue.enqueue(archive) is EnqueueOutcome.CREATED
            assert (await claimed(queue)).attempt == 1

    asyncio.run(play())


def test_the_progress_of_a_renewed_lease_is_seen_by_clients(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            await stand.queue.enqueue(archive)
            lease = await claimed(queue)
            lease.report(Phase.FETCHING, 1000)
            renewing = asyncio.create_task(lease.keep_renewed())
            async with asyncio.timeout(10):
                while (await stand.until(archive, TaskState.STARTED)).bytes_done != 1000:
                    await asyncio.sleep(0.02)
            await cancel_and_wait(renewing)

    asyncio.run(play())


def test_closing_the_queue_ends_the_waiting_claims_and_leaves_tasks_to_others(
    open_stand: OpenStand,
) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as other:
            async with stand.work_queue() as queue:
                claims = [asyncio.create_task(queue.claim()) for _ in range(3)]
                await asyncio.sleep(0.1)
                queue.close()
                assert await asyncio.gather(*claims) == [None] * 3
                assert await queue.claim() is None
            await stand.queue.enqueue(archive)
            assert (await claimed(other)).archive == archive

    asyncio.run(play())


def test_a_claim_that_is_cancelled_takes_no_task(open_stand: OpenStand) -> None:
    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.work_queue() as queue:
            claiming = asyncio.create_task(queue.claim())
            await asyncio.sleep(0.1)
            await cancel_and_wait(claiming)
            await stand.queue.enqueue(archive)
            assert (await claimed(queue)).attempt == 1

    asyncio.run(play())
