"""How a worker ends its attempts, on the fake queue and on the real one."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from archiver.errors import ArchiverError, UnknownRev, UnreadableManifest
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.tasks import Phase, Task, TaskState
from archiver.worker.back_off import SPOILED_MAX
from archiver.worker.worker import VANISHED_MAX, Build
from tests.parts.fleet import HUNG_AFTER_S, POLICY, Busy, Outage, Refused, an_archive, copies_of
from tests.parts.queue_backends import OpenStand, claimed, in_memory

NO_GRACE = replace(POLICY, grace=timedelta(0))


def builds_after(*errors: ArchiverError) -> Build:
    """Return a build that raises each of *errors* in turn, and then succeeds."""
    left = iter(errors)

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        for error in left:
            raise error
        return copies_of(archive)

    return build


def test_a_retryable_error_is_tried_again_until_it_works(open_stand: OpenStand) -> None:
    build = builds_after(Busy("not yet"), Busy("not yet"))

    async def play() -> tuple[int, int]:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(build):
            await stand.queue.enqueue(archive)
            task = await stand.until(archive, TaskState.SUCCESS)
            return task.attempt, task.failures

    assert asyncio.run(play()) == (3, 2)


def test_an_outage_of_ours_is_waited_for_and_counts_no_failure(open_stand: OpenStand) -> None:
    build = builds_after(*(Outage("our disks are away") for _ in range(3)))

    async def play() -> tuple[Task, Task]:
        archive = an_archive()
        async with (
            open_stand() as stand,
            stand.worker(build, policy=replace(POLICY, max_failures=1)),
        ):
            await stand.queue.enqueue(archive)
            waiting = await stand.until(archive, TaskState.RETRY)
            return waiting, await stand.until(archive, TaskState.SUCCESS)

    waiting, done = asyncio.run(play())
    assert waiting.error
    assert (waiting.error.code, waiting.phase, waiting.failures) == ("outage", Phase.WAITING, 0)
    assert (done.attempt, done.failures, done.error) == (4, 0, None)


def test_a_damaged_manifest_occupies_its_source_no_longer_than_other_failures(
    open_stand: OpenStand,
) -> None:
    damaged = [an_archive() for _ in range(2)]

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        if archive in damaged:
            raise UnreadableManifest("the manifest of the archive cannot be read")
        return copies_of(archive)

    async def play() -> list[Task]:
        innocent, policy = an_archive(), replace(POLICY, max_failures=2)
        async with open_stand() as stand, stand.worker(build, caps={"hgmo": 3}, policy=policy):
            for archive in (*damaged, innocent):  # two of high priority may run
                await stand.queue.enqueue(archive)
            await stand.until(innocent, TaskState.SUCCESS)
            return [await stand.until(archive, TaskState.FAILURE) for archive in damaged]

    for task in asyncio.run(play()):
        assert task.error
        assert (task.error.code, task.failures) == ("unreadable_manifest", 2)


def test_an_outage_that_interrupts_several_fetches_ends_the_task(
    open_stand: OpenStand,
) -> None:
    async def build(_archive: Archive, attempt: Attempt) -> Copies:
        attempt.report(Phase.FETCHING, 1)
        raise Outage("the bucket is nearly full")

    async def play() -> Task:
        archive, policy = an_archive(), replace(POLICY, retry_base=timedelta(seconds=0.01))
        async with open_stand() as stand, stand.worker(build, policy=policy):
            await stand.queue.enqueue(archive)
            return await stand.until(archive, TaskState.FAILURE)

    task = asyncio.run(play())
    assert task.error
    assert (task.error.code, task.attempt) == ("outage", SPOILED_MAX)


def test_between_attempts_the_task_is_in_retry_and_says_why(open_stand: OpenStand) -> None:
    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Busy("the host is busy")

    async def play() -> tuple[str | None, str | None]:
        archive, long_enough = an_archive(), timedelta(seconds=2)
        policy = replace(POLICY, max_failures=2, retry_base=long_enough)
        async with open_stand() as stand, stand.worker(build, policy=policy):
            await stand.queue.enqueue(archive)
            retrying = await stand.until(archive, TaskState.RETRY)
            failed = await stand.until(archive, TaskState.FAILURE)
            return (
                retrying.error.message if retrying.error else None,
                failed.error.code if failed.error else None,
            )

    assert asyncio.run(play()) == ("the host is busy", "busy")


def test_an_error_that_is_not_retryable_fails_the_task_at_once(open_stand: OpenStand) -> None:
    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise Refused("no")

    async def play() -> tuple[int, str | None]:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(build):
            await stand.queue.enqueue(archive)
            task = await stand.until(archive, TaskState.FAILURE)
            return task.attempt, task.error.code if task.error else None

    assert asyncio.run(play()) == (1, "refused")


@pytest.mark.parametrize(("error", "level"), ((UnknownRev("no"), "info"), (Refused("no"), "error")))
def test_an_archive_that_the_host_does_not_have_is_no_error_of_the_service(
    open_stand: OpenStand, error: ArchiverError, level: str
) -> None:
    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise error

    async def play() -> str:
        with capture_logs() as logs:
            async with open_stand() as stand, stand.worker(build), asyncio.timeout(HUNG_AFTER_S):
                await stand.queue.enqueue(an_archive())
                while not (lines := [line for line in logs if line["event"] == "task.failed"]):
                    await asyncio.sleep(0.01)
        return str(lines[0]["log_level"])

    assert asyncio.run(play()) == level


@pytest.mark.parametrize(
    "fault",
    (ZeroDivisionError("secret-text"), Refused("secret-text \udc80"), Busy("secret-text \udc80")),
    ids=("in-the-build", "in-its-failure", "in-its-retry"),
)
def test_a_bug_ends_in_failure_and_its_text_is_not_published(
    open_stand: OpenStand, fault: Exception
) -> None:
    """The text of a failure cannot be encoded if it has half of a UTF-16 pair."""

    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise fault

    async def play() -> str:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(build):
            await stand.queue.enqueue(archive)
            task = await stand.until(archive, TaskState.FAILURE)
            assert task.error
            return f"{task.error.code} {task.error.message}"

    said = asyncio.run(play())
    assert said.startswith("internal_error")
    assert "secret-text" not in said


def test_progress_is_seen_while_the_task_runs(open_stand: OpenStand) -> None:
    seen: list[int] = []

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        done = 0
        while len(seen) < 2:
            done += 1000
            attempt.report(Phase.FETCHING, done)
            await asyncio.sleep(0.01)
        return copies_of(archive)

    async def play() -> None:
        archive = an_archive()
        async with asyncio.timeout(HUNG_AFTER_S), open_stand() as stand, stand.worker(build):
            await stand.queue.enqueue(archive)
            task: Task | None = await stand.until(archive, TaskState.STARTED)
            while task and task.state is TaskState.STARTED:
                if task.phase is Phase.FETCHING and task.bytes_done not in seen:
                    seen.append(task.bytes_done)
                await asyncio.sleep(0.05)
                task = await stand.queue.task(archive)

    asyncio.run(play())
    assert len(seen) >= 2
    assert seen == sorted(seen)


def test_a_stopping_worker_hands_its_task_to_another_one(open_stand: OpenStand) -> None:
    async def endless(_archive: Archive, _attempt: Attempt) -> Copies:
        await asyncio.Event().wait()
        raise AssertionError

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def play() -> tuple[int, int]:
        archive, endless_lease = an_archive(), timedelta(hours=1)
        async with open_stand() as stand:
            await stand.queue.enqueue(archive)
            async with stand.worker(endless, policy=NO_GRACE, lease=endless_lease):
                await stand.until(archive, TaskState.STARTED)
            async with stand.worker(build, lease=endless_lease):
                task = await stand.until(archive, TaskState.SUCCESS)
            return task.attempt, task.failures

    assert asyncio.run(play()) == (2, 0)


def test_a_busy_worker_that_stops_hands_back_only_its_own_tasks(
    open_stand: OpenStand,
) -> None:
    async def endless(_archive: Archive, _attempt: Attempt) -> Copies:
        await asyncio.Event().wait()
        raise AssertionError

    async def play() -> list[TaskState]:
        archives = [an_archive(), an_archive()]
        async with open_stand() as stand:
            async with stand.worker(endless, policy=replace(NO_GRACE, concurrency=1)):
                for archive in archives:
                    await stand.queue.enqueue(archive)
                await stand.until(archives[0], TaskState.STARTED)
            tasks = [await stand.queue.task(archive) for archive in archives]
            return [task.state for task in tasks if task]

    assert asyncio.run(play()) == [TaskState.RETRY, TaskState.PENDING]


def test_a_build_that_ends_within_the_grace_is_not_handed_back(open_stand: OpenStand) -> None:
    seen = asyncio.Event()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        await seen.wait()
        await asyncio.sleep(0.5)
        return copies_of(archive)

    async def play() -> int:
        archive = an_archive()
        async with open_stand() as stand:
            await stand.queue.enqueue(archive)
            async with stand.worker(build, policy=replace(POLICY, grace=timedelta(seconds=10))):
                await stand.until(archive, TaskState.STARTED)
                seen.set()
            return (await stand.until(archive, TaskState.SUCCESS)).attempt

    assert asyncio.run(play()) == 1


def test_a_task_over_which_workers_keep_vanishing_is_given_up() -> None:
    async def build(_archive: Archive, _attempt: Attempt) -> Copies:
        raise AssertionError

    async def play() -> Task:
        archive, short = an_archive(), timedelta(seconds=0.01)
        async with in_memory() as stand:
            await stand.queue.enqueue(archive)
            async with stand.work_queue(lease=short) as queue:
                for _ in range(VANISHED_MAX):
                    await claimed(queue)
            async with stand.worker(build):
                return await stand.until(archive, TaskState.FAILURE)

    task = asyncio.run(play())
    assert task.error
    assert task.error.code == "workers_lost"


def test_running_attempts_are_counted_by_their_phase(open_stand: OpenStand) -> None:
    seen: list[dict[str, float]] = []

    def look() -> None:
        values = {
            phase: REGISTRY.get_sample_value("archiver_attempts_in_phase", {"phase": phase})
            for phase in Phase
        }
        seen.append({phase: value for phase, value in values.items() if value})

    async def build(archive: Archive, attempt: Attempt) -> Copies:
        look()
        for _ in range(2):
            attempt.report(Phase.FETCHING, 1)
        look()
        attempt.report(Phase.COMMITTING, 2)
        look()
        return copies_of(archive)

    async def play() -> None:
        archive = an_archive()
        async with open_stand() as stand, stand.worker(build):
            await stand.queue.enqueue(archive)
            await stand.until(archive, TaskState.SUCCESS)
        look()

    asyncio.run(play())
    assert seen == [{Phase.CONNECTING: 1}, {Phase.FETCHING: 1}, {Phase.COMMITTING: 1}, {}]
