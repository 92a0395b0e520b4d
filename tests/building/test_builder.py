"""The choice of an input for an archive, with fakes."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from archiver.errors import (
    BytesChanged,
    CorruptArchive,
    NoRoom,
    NotPackable,
    SourceError,
    SourcePaused,
    SourceUnavailable,
    TruncatedArchive,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.model import Archive, Completeness, Copies, Pending, Region
from archiver.ports.source import ServedFormats
from archiver.tasks import Phase, Priority
from archiver.testing import FakeAttempt, FakeSource
from archiver.tree_proof import everything
from tests.memory_world import World, request

T = TypeVar("T")
EAST, WEST = Region("us-east-1"), Region("us-west-2")
ONLY_ZIP = ServedFormats(suffixes=("zip",), verbatim=False)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


def a_world(served: ServedFormats = ONLY_ZIP) -> World:
    return World(source=FakeSource(served=served))


async def build(world: World, archive: Archive) -> Copies:
    return await world.archiver.build(archive, FakeAttempt(archive=archive))


def stored(world: World, copies: Copies, region: Region = EAST) -> bytes:
    return world.storage.objects[region][copies.manifest.object_key]


def test_without_room_for_a_conversion_no_request_is_sent() -> None:
    """Otherwise the attempt counts as a failure, and five failures fail the task."""
    world = a_world()
    world.converter.full = True
    attempts = [FakeAttempt(archive=world.archive(suffix=suffix)) for suffix in ("tar.gz", "tar")]
    with pytest.raises(NoRoom):
        run(world.archiver.build(attempts[0].archive, attempts[0]))
    assert "open" not in world.source.asked

    run(build(world, world.archive(suffix="zip")))  # needs none
    with pytest.raises(NoRoom):
        run(world.archiver.build(attempts[1].archive, attempts[1]))
    assert world.source.asked["open"] == 1
    phases = {phase for attempt in attempts for phase, _ in attempt.reports}
    assert phases <= {Phase.CONNECTING}


def test_an_unserved_format_is_converted_from_a_served_one() -> None:
    world = a_world()
    archive = world.archive(suffix="tar.zst")

    manifest = run(build(world, archive)).manifest

    assert manifest.source_url.endswith(".zip/")
    assert manifest.conversion
    assert manifest.conversion.key == replace(archive, suffix="zip").key
    assert manifest.conversion.converter == "fake tar.zst"
    assert manifest.conversion.size_bytes > 0
    assert world.storage.manifests[EAST] == world.storage.manifests[WEST]
    assert [*world.storage.manifests[EAST]] == [archive.key]


def test_a_served_format_is_stored_verbatim() -> None:
    world = a_world()

    copies = run(build(world, world.archive(suffix="zip")))

    assert copies.manifest.conversion is None
    assert world.converter.conversions == 0


@pytest.mark.parametrize(
    ("subdir", "suffix"), (("", "tar.gz"), ("testing", "zip"), ("testing", "tar"))
)
def test_a_stored_archive_is_converted_without_a_request_to_the_host(
    subdir: str, suffix: str
) -> None:
    world = a_world()
    whole, relative = world.archive(suffix="zip"), world.archive(subdir, suffix)

    async def scenario() -> tuple[Copies, Copies]:
        return await build(world, whole), await build(world, relative)

    first, second = run(scenario())

    assert world.source.asked["open"] == 1
    assert second.manifest.conversion
    assert second.manifest.conversion.key == whole.key
    assert second.manifest.conversion.sha256 == first.manifest.sha256
    assert second.manifest.source_url == first.manifest.source_url


@pytest.mark.parametrize("lfs", (False, True))
@pytest.mark.parametrize("submodules", (False, True))
def test_an_archive_is_not_converted_from_one_with_other_flags(
    *, submodules: bool, lfs: bool
) -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",), verbatim=False))
    world.source.completes = True
    given = replace(world.archive(suffix="tar.gz"), submodules=submodules, lfs=lfs)
    archive = replace(world.archive(suffix="zip"), submodules=not submodules, lfs=lfs)

    async def scenario() -> Copies:
        await build(world, given)
        return await build(world, archive)

    conversion = run(scenario()).manifest.conversion

    assert world.source.asked["open"] == 2
    assert conversion
    assert conversion.key == replace(archive, suffix="tar.gz").key


def test_a_complete_archive_is_converted_from_one_with_the_same_flags() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",), verbatim=False))
    world.source.completes = True
    given = replace(world.archive(suffix="tar.gz"), submodules=True, lfs=True)

    async def scenario() -> Copies:
        await build(world, given)
        return await build(world, replace(given, suffix="zip", subdir="testing"))

    conversion = run(scenario()).manifest.conversion

    assert world.source.asked["open"] == 1
    assert conversion
    assert conversion.key == given.key


def test_a_subdir_is_converted_from_the_same_subdir_first() -> None:
    world = a_world()
    part = world.archive("testing", "zip")

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        await build(world, part)
        return await build(world, world.archive("testing", "tar.gz"))

    conversion = run(scenario()).manifest.conversion

    assert conversion
    assert conversion.key == part.key


def test_a_host_without_subdirs_sends_the_whole_tree_once() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",), subdirs=False))

    async def scenario() -> Copies:
        await build(world, world.archive())
        return await build(world, world.archive("testing"))

    manifest = run(scenario()).manifest

    assert manifest.conversion
    assert manifest.conversion.key == world.archive().key
    assert world.source.asked["open"] == 1


def test_verbatim_formats_are_all_fetched_from_the_host() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz", "zip")))

    async def scenario() -> Copies:
        await build(world, world.archive())
        return await build(world, world.archive(suffix="zip"))

    assert run(scenario()).manifest.conversion is None
    assert world.source.asked["open"] == 2


def test_a_subdir_outside_the_tree_is_unknown() -> None:
    world = a_world()

    async def scenario() -> None:
        await build(world, world.archive(suffix="zip"))
        await build(world, world.archive("nowhere", "tar.gz"))

    with pytest.raises(UnknownSubdir):
        run(scenario())


def at_the_start(data: bytes) -> bytes:
    return b"!" + data[1:]


def at_the_end(data: bytes) -> bytes:
    return data + b"!"


@pytest.mark.parametrize("damaged", (at_the_start, at_the_end))
def test_a_damaged_copy_is_replaced_by_another_regions(
    damaged: Callable[[bytes], bytes],
) -> None:
    world = a_world()

    async def scenario() -> Copies:
        whole = await build(world, world.archive(suffix="zip"))
        objects, key = world.storage.objects[EAST], whole.manifest.object_key
        objects[key] = damaged(objects[key])
        return await build(world, world.archive(suffix="tar.gz"))

    assert run(scenario()).manifest.conversion
    assert world.source.asked["open"] == 1


def test_a_copy_is_read_from_a_reachable_region_first() -> None:
    world = a_world()

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        world.storage.down.add(EAST)
        return await build(world, world.archive(suffix="tar.gz"))

    with capture_logs() as logs:
        assert run(scenario()).manifest.conversion
    assert "input.failed" not in [line["event"] for line in logs]


def test_an_inconvertible_archive_is_read_from_one_region_only() -> None:
    world = a_world()

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        await build(world, world.archive(suffix="tar.zst"))
        world.converter.not_convertible.add("tar.zst")
        return await build(world, world.archive(suffix="tar.gz"))

    with capture_logs() as logs:
        conversion = run(scenario()).manifest.conversion

    assert conversion
    assert conversion.key == world.archive(suffix="zip").key
    assert [line["code"] for line in logs if line["event"] == "input.failed"] == ["not_convertible"]


def test_a_conversion_with_other_bytes_is_not_repeated_in_another_region() -> None:
    world = a_world()
    archive = world.archive(suffix="tar.gz")

    async def scenario() -> None:
        await build(world, world.archive(suffix="zip"))
        lost = (await build(world, archive)).manifest
        for region in (EAST, WEST):
            del world.storage.objects[region][lost.object_key]
            world.storage.manifests[region][archive.key] = replace(lost, sha256="0" * 64)
        world.converter.conversions = 0
        await build(world, archive)

    with pytest.raises(BytesChanged):
        run(scenario())

    assert world.converter.conversions == 2  # of what the regions have, and of what the host sends
    assert world.source.asked["open"] == 2


def test_an_unreadable_copy_is_fetched_again() -> None:
    world = a_world()

    async def scenario() -> Copies:
        whole = await build(world, world.archive(suffix="zip"))
        for objects in world.storage.objects.values():
            del objects[whole.manifest.object_key]
        return await build(world, world.archive(suffix="tar.gz"))

    assert run(scenario()).manifest.conversion
    assert world.source.asked["open"] == 2


def test_a_relative_with_an_unreadable_manifest_is_skipped() -> None:
    world = a_world()
    damaged, relative = world.archive(suffix="zip"), world.archive(suffix="tar")
    world.storage.unreadable.add(damaged)

    with capture_logs() as logs:
        copies = run(build(world, relative))

    assert copies.regions == (EAST, WEST)
    failed = [line for line in logs if line["event"] == "input.failed"]
    assert [line["code"] for line in failed] == ["unreadable_manifest"]


def test_a_truncated_input_is_not_converted() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",), verbatim=False))
    world.source.cut_at = 50

    with pytest.raises((TruncatedArchive, CorruptArchive)):
        run(build(world, world.archive(suffix="tar")))

    assert not any(world.storage.manifests.values())


@pytest.mark.parametrize(
    "outage",
    (SourceUnavailable("gone fishing"), SourcePaused("later", retry_after=timedelta(seconds=5))),
)
def test_an_unreachable_host_does_not_matter_if_a_relative_is_stored(
    outage: SourceError,
) -> None:
    world = a_world()
    fresh = world.new_process()

    async def scenario() -> object:
        await build(world, world.archive(suffix="zip"))
        world.source.outage = outage
        outcome = await request(fresh, world.wanted(suffix="tar.gz"))
        lane = world.engine.priority(world.archive(suffix="tar.gz"))
        assert lane is Priority.LOW, "the lane of the tasks that no pause of the source delays"
        await world.work()
        return outcome

    assert isinstance(run(scenario()), Pending)
    assert world.archive(suffix="tar.gz").key in world.storage.manifests[EAST]


def test_an_unreachable_host_matters_if_no_relative_is_stored() -> None:
    world = a_world()
    world.source.outage = SourceUnavailable("gone fishing")

    with pytest.raises(SourceUnavailable):
        run(request(world.archiver, world.wanted(suffix="tar.gz")))


def test_a_conversion_reports_its_progress() -> None:
    world = a_world()
    archive = world.archive(suffix="tar")
    attempt = FakeAttempt(archive=archive)

    run(world.archiver.build(archive, attempt))

    phases = list(dict.fromkeys(phase for phase, _ in attempt.reports))
    assert phases == [Phase.CONNECTING, Phase.FETCHING, Phase.CONVERTING, Phase.COMMITTING]


def test_the_status_has_the_url_that_is_fetched() -> None:
    world = a_world()

    status = run(world.archiver.status(world.archive(suffix="tar.gz"), may_read=everything))

    assert status.source_url.endswith(f"{world.node}.zip/")


@pytest.mark.parametrize("dropped", (0, 1))
def test_an_unproven_copy_is_proven_before_its_conversion(
    dropped: int,
) -> None:
    world = a_world()
    world.source.trusted, world.source.dropped = True, dropped

    async def scenario() -> tuple[Copies, Copies]:
        first = await build(world, world.archive(suffix="zip"))
        world.source.trusted, world.source.dropped = False, 0
        return first, await build(world, world.archive(suffix="tar.gz"))

    first, second = run(scenario())

    assert first.manifest.completeness is Completeness.TRUSTED
    assert second.manifest.completeness is Completeness.PROVEN
    assert world.source.asked["open"] == 1 + dropped


def test_a_proven_copy_is_not_proven_again() -> None:
    world = a_world()

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        world.source.asked.clear()
        return await build(world, world.archive(suffix="tar.gz"))

    assert run(scenario()).manifest.completeness is Completeness.PROVEN
    assert not world.source.asked


def test_a_fetch_stops_early_if_the_host_does_not_list_its_files() -> None:
    world = a_world()
    world.source.unlisted = UnprovenArchive("it lists nothing")

    with pytest.raises(UnprovenArchive):
        run(build(world, world.archive(suffix="zip")))

    assert not any(world.storage.manifests.values())


def test_a_tree_is_fetched_in_the_only_format_that_can_hold_it() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz", "tar.bz2", "zip")))
    world.source.unfit.update(("tar.gz", "tar.bz2"))

    with capture_logs() as logs:
        manifest = run(build(world, world.archive())).manifest

    assert manifest.conversion
    assert manifest.conversion.key == world.archive(suffix="zip").key
    assert [line["code"] for line in logs if line["event"] == "format.failed"] == [
        "not_packable",
        "not_packable",
    ]


def test_a_tree_that_no_format_can_hold_fails_for_good() -> None:
    world = a_world(ServedFormats(suffixes=("zip",), fallback=("tar.gz",)))
    world.source.unfit.update(("tar.gz", "zip"))

    with pytest.raises(NotPackable, match="zip") as raised:
        run(build(world, world.archive(suffix="zip")))

    assert not raised.value.retryable


def test_an_unexpected_root_is_replaced() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",)))
    world.source.web_name = "renamed"

    manifest = run(build(world, world.archive())).manifest

    assert manifest.root == f"ash-{world.node[:12]}"
    assert manifest.conversion
    assert manifest.conversion.key == manifest.key


def test_without_room_to_replace_a_root_no_body_is_read() -> None:
    world = a_world(ServedFormats(suffixes=("tar.gz",)))
    world.source.web_name = "renamed"
    world.converter.full = True
    attempt = FakeAttempt(archive=world.archive())

    with pytest.raises(NoRoom):
        run(world.archiver.build(attempt.archive, attempt))

    assert {phase for phase, _ in attempt.reports} == {Phase.CONNECTING}
