"""The promises of ``TaskList``, kept by the fake and by NATS."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.ports.task_list import ListedTask
from archiver.tasks import LIGHT_MAX, Priority, TaskState
from tests.parts.fleet import HUNG_AFTER_S, Busy, Refused, an_archive, copies_of
from tests.parts.queue_backends import OpenStand, QueueBackend, claimed

LATER = timedelta(minutes=1)
FAR = timedelta(days=8)


def play(open_stand: OpenStand, scenario: Callable[[QueueBackend], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_stand() as stand, asyncio.timeout(HUNG_AFTER_S):
            await scenario(stand)

    asyncio.run(run())


async def oldest(stand: QueueBackend, source: str | None = None) -> list[ListedTask]:
    return [listed async for listed in stand.tasks.oldest(source)]


async def recorded(stand: QueueBackend, source: str | None = None) -> list[ListedTask]:
    return [listed async for listed in stand.tasks.recorded(source)]


def test_an_empty_queue_has_no_tasks(open_stand: OpenStand) -> None:
    async def scenario(stand: QueueBackend) -> None:
        assert [each async for each in stand.tasks.queued()] == []
        assert await oldest(stand) == []
        assert await recorded(stand) == []
        assert await stand.tasks.window(at_most=1) is None
        assert await stand.tasks.client("-") == ""

    play(open_stand, scenario)


def test_waiting_tasks_come_the_oldest_first_and_name_their_clients(open_stand: OpenStand) -> None:
    async def scenario(stand: QueueBackend) -> None:
        names = ("token:a", "2001:db8::/64", "", "token:a")
        archives = [an_archive() for _ in names]
        for archive, name in zip(archives, names, strict=True):
            priority = Priority.HIGH if name else Priority.LOW
            await stand.queue.enqueue(archive, client=name, priority=priority)
        listed = await oldest(stand)
        assert [each.task.archive for each in listed] == archives
        assert [each.client for each in listed] == [*names]
        assert {each.task.state for each in listed} == {TaskState.PENDING}
        assert all(each.task.created_at for each in listed)

    play(open_stand, scenario)


def test_tasks_of_a_client_with_many_are_listed_as_well(open_stand: OpenStand) -> None:
    async def scenario(stand: QueueBackend) -> None:
        archives = [an_archive() for _ in range(LIGHT_MAX + 3)]
        for archive in archives:
            await stand.queue.enqueue(archive, client="token:a")
        listed = await oldest(stand)
        assert [each.task.archive for each in listed] == archives
        assert [each.client for each in listed] == ["token:a"] * len(archives)
        assert len([each async for each in stand.tasks.queued("hgmo")]) == len(archives)

    play(open_stand, scenario)


def test_the_queue_is_counted_by_source_and_client(open_stand: OpenStand) -> None:
    async def scenario(stand: QueueBackend) -> None:
        for source, name in (("hgmo", "a"), ("hgmo", "b"), ("git", "a"), ("hgmo", "")):
            await stand.queue.enqueue(an_archive(source), client=name)
        queued = [each async for each in stand.tasks.queued()]
        assert Counter(each.source for each in queued) == {"hgmo": 3, "git": 1}
        holders = Counter(each.holder for each in queued)
        names = {await stand.tasks.client(holder): holders[holder] for holder in holders}
        assert names == {"a": 2, "b": 1, "": 1}
        assert len([each async for each in stand.tasks.queued("git")]) == 1
        assert [each.task.archive.source for each in await oldest(stand, "git")] == ["git"]

    play(open_stand, scenario)


def test_claimed_tasks_have_their_state_their_error_and_their_client(
    open_stand: OpenStand,
) -> None:
    async def scenario(stand: QueueBackend) -> None:
        failed, stored, running, retried = (an_archive() for _ in range(4))
        async with stand.work_queue(lease=LATER) as queue:
            for archive in (failed, stored, running, retried):
                await stand.queue.enqueue(archive, client=f"token:{archive.node[:4]}")
                lease = await claimed(queue)
                if archive == failed:
                    await lease.fail(Refused("the host refuses"))
                elif archive == stored:
                    await lease.succeed()
                elif archive == retried:
                    await lease.retry(Busy("the host is busy"), after=LATER)
            listed = {each.task.archive: each for each in await recorded(stand)}
        assert {archive: each.task.state for archive, each in listed.items()} == {
            running: TaskState.STARTED,
            retried: TaskState.RETRY,
            failed: TaskState.FAILURE,
            stored: TaskState.SUCCESS,
        }
        errors = {archive: each.task.error for archive, each in listed.items()}
        codes = {archive: error.code for archive, error in errors.items() if error}
        assert codes == {retried: "busy", failed: "refused"}
        assert all(each.client == f"token:{a.node[:4]}" for a, each in listed.items())
        assert await recorded(stand, "git") == []
        queued = {each.key_hash async for each in stand.tasks.queued()}
        assert queued == {running.key_hash, retried.key_hash}

    play(open_stand, scenario)


def test_a_window_reaches_back_as_far_as_its_tasks_are_few(open_stand: OpenStand) -> None:
    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        return copies_of(archive)

    async def scenario(stand: QueueBackend) -> None:
        archives = [an_archive() for _ in range(5)]
        async with stand.worker(build):
            for archive in archives:
                await stand.queue.enqueue(archive)
            for archive in archives:
                await stand.until(archive, TaskState.SUCCESS)
        assert await stand.tasks.window(at_most=5) is None
        since = await stand.tasks.window(at_most=4)
        assert since
        listed = [each async for each in stand.tasks.recorded(since=since + FAR)]
        assert listed == []
        assert len([each async for each in stand.tasks.recorded(since=since)]) >= 4

    play(open_stand, scenario)
