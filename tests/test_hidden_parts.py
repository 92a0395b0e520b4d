"""An archive is as private as its most private part: requests and statuses, in a world of fakes."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from archiver.errors import (
    ArchiverError,
    PartOrigin,
    SourceUnavailable,
    StorageUnavailable,
    SubmoduleMissing,
    SubmoduleRefused,
    TaskFailed,
)
from archiver.model import Absent, Archive, Manifest, Pending, Ready
from archiver.status import Status
from archiver.tasks import Failure, Phase, Task, TaskState
from archiver.tree_proof import everything
from tests.part_world import ORIGIN, PUBLIC_ORIGIN, VAULT, PartWorld
from tests.parts.fleet import an_archive

T = TypeVar("T")

REFUSED = SubmoduleRefused.of(ORIGIN.path, ORIGIN.url)


def outside(source: str, _repo: str) -> bool:
    """Let a client read all but the private source."""
    return source != VAULT


def run(coroutine: Awaitable[T]) -> T:
    async def awaited() -> T:
        return await coroutine

    return asyncio.run(awaited())


async def ask(
    world: PartWorld, *, may_read: object = outside, create: bool = True, suffix: str = "tar.gz"
) -> Ready | Pending | Absent:
    return await world.archiver.request(
        world.wanted_complete(suffix),
        may_read=everything if may_read is everything else outside,
        create=create,
        share=create,
        client="",
    )


async def build(world: PartWorld) -> None:
    await ask(world, may_read=everything)
    await world.work()


async def refusal(world: PartWorld) -> tuple[str, str]:
    with pytest.raises(TaskFailed) as caught:
        await ask(world)
    return caught.value.failed_with, caught.value.message


AS_REFUSED = (REFUSED.code, REFUSED.message)


def test_a_hidden_part_is_a_submodule_whose_url_no_source_serves() -> None:
    async def play(world: PartWorld) -> None:
        world.source.fault = REFUSED
        await build(world)
        unserved = await refusal(world)
        other = PartWorld()
        await build(other)
        assert await refusal(other) == unserved == AS_REFUSED
        assert isinstance(await ask(other, may_read=everything), Ready)

    run(play(PartWorld()))


def test_a_hidden_archive_is_not_used_and_causes_no_task() -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        used: list[str] = []
        world.archiver.hits.add(used.append)
        world.storage.manifests[world.storage.regions[0]].clear()
        tasks = dict(world.engine.tasks)
        await refusal(world)
        assert isinstance(await ask(world, create=False), Absent)
        assert (used, world.engine.tasks, world.engine.repairs) == ([], tasks, {})

    run(play(PartWorld()))


def test_a_hidden_archive_is_no_input_while_the_host_is_away() -> None:
    """Else the answer for another format would show that the archive exists."""

    async def play(world: PartWorld) -> None:
        await build(world)
        world.source.outage = SourceUnavailable("the host is away")
        world.archiver = world.new_process()
        with pytest.raises(SourceUnavailable):
            await ask(world, suffix="zip")
        assert isinstance(await ask(world, may_read=everything, suffix="zip"), Pending)

    run(play(PartWorld()))


@pytest.mark.parametrize("origins", ((ORIGIN,), (PUBLIC_ORIGIN, ORIGIN), (ORIGIN, PUBLIC_ORIGIN)))
@pytest.mark.parametrize(
    "error", (SubmoduleMissing("no such commit"), SourceUnavailable("the host is away"))
)
def test_an_error_in_a_hidden_part_is_the_refusal(
    error: ArchiverError, origins: tuple[PartOrigin, ...]
) -> None:
    """Whether a retry could have helped makes no difference."""

    async def play(world: PartWorld) -> None:
        world.source.fault = error.without_frames().within(*origins)
        await build(world)
        assert await refusal(world) == AS_REFUSED
        with pytest.raises(TaskFailed) as caught:
            await ask(world, may_read=everything)
        assert caught.value.failed_with == error.code

    run(play(PartWorld()))


def test_an_error_in_the_repo_itself_is_no_secret() -> None:
    async def play(world: PartWorld) -> None:
        world.source.fault = SubmoduleMissing("no such commit").within(PUBLIC_ORIGIN)
        await build(world)
        assert await refusal(world) == ("submodule_missing", "no such commit")

    run(play(PartWorld()))


def test_a_task_that_goes_on_after_an_error_in_a_hidden_part_has_failed() -> None:
    async def play(world: PartWorld) -> None:
        await ask(world)
        attempt = world.engine.claim()
        assert attempt
        world.engine.retry(attempt, SourceUnavailable("away").within(ORIGIN))
        assert await refusal(world) == AS_REFUSED
        assert isinstance(await ask(world, may_read=everything), Pending)
        assert world.engine.claim()
        assert await refusal(world) == AS_REFUSED
        await world.work()

    run(play(PartWorld()))


@pytest.mark.parametrize("down", (0, 1, 2))
def test_bytes_of_a_hidden_archive_are_not_found(down: int) -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        sha256 = next(iter(world.index.digests))
        world.storage.down |= set(world.storage.regions[:down])
        assert await world.archiver.locate(sha256, None, may_read=outside) is None
        assert await world.archiver.locate(sha256, None, may_read=everything)

    run(play(PartWorld()))


def test_the_bytes_of_another_archive_that_is_readable_are_found() -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        sha256, plain = next(iter(world.index.digests)), world.archive()
        for manifests in world.storage.manifests.values():
            manifest = manifests[world.complete().key]
            manifests[plain.key] = replace(manifest, key=plain.key, proof=None)
        world.index.digests[sha256].append(plain)
        found = await world.archiver.locate(sha256, None, may_read=outside)
        assert found
        assert found.archive == plain

    run(play(PartWorld()))


def manifest_of(world: PartWorld) -> Manifest:
    return world.storage.manifests[world.storage.regions[0]][world.complete().key]


async def statuses(world: PartWorld, archive: Archive) -> tuple[Status, Status]:
    """Return the status for an outsider, and for a client that may read everything."""
    status = world.archiver.status
    return await status(archive, may_read=outside), await status(archive, may_read=everything)


def test_the_status_of_a_hidden_archive_is_a_failure_without_traces_of_the_build() -> None:
    async def play(world: PartWorld) -> None:
        await ask(world)
        await world.work()
        seen, whole = await statuses(world, world.complete())
        assert whole.task.state is TaskState.SUCCESS
        assert len(whole.urls) == 2
        assert seen == Status(
            task=replace(
                whole.task,
                state=TaskState.FAILURE,
                bytes_done=0,
                attempt=1,
                failures=1,
                error=Failure.of(REFUSED),
                updated_at=whole.task.started_at,
            ),
            source_url=whole.source_url,
        )

    run(play(PartWorld()))


def test_a_hidden_archive_whose_task_is_forgotten_failed_when_it_was_built() -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        world.engine.tasks.clear()
        seen, _ = await statuses(world, world.complete())
        built_at = manifest_of(world).created_at
        task: Task = seen.task
        assert (task.state, task.error) == (TaskState.FAILURE, Failure.of(REFUSED))
        assert task.created_at == task.started_at == task.updated_at == built_at

    run(play(PartWorld()))


def test_nothing_is_presigned_for_a_client_that_may_not_have_it() -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        await world.archiver.status(world.complete(), may_read=outside)
        await refusal(world)
        assert not world.storage.presigned
        await world.archiver.status(world.complete(), may_read=everything)
        assert world.storage.presigned

    run(play(PartWorld()))


def test_while_all_regions_are_away_the_end_of_a_complete_archive_is_unknown() -> None:
    """Neither a success nor a failure shows, because parts of the archive may be hidden."""

    async def play(world: PartWorld, fault: ArchiverError | None) -> None:
        world.source.fault = fault
        await build(world)
        world.storage.down |= set(world.storage.regions)
        world.index._copies.clear()  # noqa: SLF001 - as in a process that has just started
        with pytest.raises(StorageUnavailable):
            await world.archiver.status(world.complete(), may_read=outside)

    for fault in (None, REFUSED):
        run(play(PartWorld(), fault))


def test_the_time_of_the_refusal_does_not_say_how_long_the_build_took() -> None:
    async def play(world: PartWorld) -> None:
        await build(world)
        key = world.complete().key
        task = world.engine.tasks[key]
        assert task.updated_at
        world.engine.tasks[key] = replace(task, updated_at=task.updated_at + timedelta(hours=1))
        seen, _ = await statuses(world, world.complete())
        assert seen.task.updated_at == task.started_at

    run(play(PartWorld()))


def test_a_real_refusal_says_nothing_of_its_build() -> None:
    """The status of a hidden archive cannot say what a refused build has received, or how long."""
    began = datetime(2026, 1, 2, tzinfo=UTC)
    archive = replace(an_archive(), submodules=True)
    refused = Task(
        archive=archive,
        state=TaskState.FAILURE,
        phase=Phase.DONE,
        bytes_done=394,
        attempt=1,
        failures=1,
        error=Failure.refusal(ORIGIN),
        created_at=began,
        started_at=began,
        updated_at=began + timedelta(seconds=3),
    )
    seen = Status(task=refused, source_url="").as_seen_by(everything).task
    assert (seen.bytes_done, seen.updated_at) == (0, began)
    assert seen.error == refused.error
