"""What an archive is made of, in a world of fakes."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from archiver.errors import (
    BytesChanged,
    CorruptArchive,
    NoRoom,
    NotPackable,
    SourceUnavailable,
    TruncatedArchive,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.model import Archive, Completeness, Copies, Pending, Region, Served
from archiver.tasks import Phase
from archiver.testing import FakeAttempt, FakeSource
from tests.world import World, request

T = TypeVar("T")
EAST, WEST = Region("us-east-1"), Region("us-west-2")
ONLY_ZIP = Served(suffixes=("zip",), verbatim=False)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


def a_world(served: Served = ONLY_ZIP) -> World:
    return World(source=FakeSource(served=served))


async def build(world: World, archive: Archive) -> Copies:
    return await world.archiver.build(archive, FakeAttempt(archive=archive))


def stored(world: World, copies: Copies, region: Region = EAST) -> bytes:
    return world.storage.objects[region][copies.manifest.object_key]


def test_without_room_for_a_conversion_neither_the_host_nor_a_region_is_asked() -> None:
    """Else the attempt counts as one that the host paid for, and five of those fail a task."""
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


def test_what_the_host_does_not_serve_is_made_of_what_it_serves() -> None:
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


def test_what_the_host_serves_is_kept_as_it_came() -> None:
    world = a_world()

    copies = run(build(world, world.archive(suffix="zip")))

    assert copies.manifest.conversion is None
    assert world.converter.conversions == 0


@pytest.mark.parametrize(
    ("subdir", "suffix"), (("", "tar.gz"), ("testing", "zip"), ("testing", "tar"))
)
def test_what_a_region_has_is_made_into_its_relatives_at_no_cost_to_the_host(
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


def test_a_part_is_made_of_the_same_part_rather_than_of_the_whole() -> None:
    world = a_world()
    part = world.archive("testing", "zip")

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        await build(world, part)
        return await build(world, world.archive("testing", "tar.gz"))

    conversion = run(scenario()).manifest.conversion

    assert conversion
    assert conversion.key == part.key


def test_a_host_that_cuts_no_subdirs_sends_the_whole_tree_once() -> None:
    world = a_world(Served(suffixes=("tar.gz",), subdirs=False))

    async def scenario() -> Copies:
        await build(world, world.archive())
        return await build(world, world.archive("testing"))

    manifest = run(scenario()).manifest

    assert manifest.conversion
    assert manifest.conversion.key == world.archive().key
    assert world.source.asked["open"] == 1


def test_a_host_that_is_to_be_followed_verbatim_is_asked_for_all_that_it_serves() -> None:
    world = a_world(Served(suffixes=("tar.gz", "zip")))

    async def scenario() -> Copies:
        await build(world, world.archive())
        return await build(world, world.archive(suffix="zip"))

    assert run(scenario()).manifest.conversion is None
    assert world.source.asked["open"] == 2


def test_a_subdir_that_is_not_in_the_whole_tree_is_unknown() -> None:
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
def test_a_copy_that_is_damaged_is_passed_over_for_another_regions(
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


def test_a_copy_is_not_read_from_a_region_that_is_silent_if_another_has_it() -> None:
    world = a_world()

    async def scenario() -> Copies:
        await build(world, world.archive(suffix="zip"))
        world.storage.down.add(EAST)
        return await build(world, world.archive(suffix="tar.gz"))

    with capture_logs() as logs:
        assert run(scenario()).manifest.conversion
    assert "input.failed" not in [line["event"] for line in logs]


def test_what_cannot_be_converted_is_so_in_every_region() -> None:
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


def test_what_is_not_made_into_the_promised_bytes_is_not_so_of_another_regions_copy() -> None:
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


def test_a_copy_that_no_region_gives_is_fetched_again() -> None:
    world = a_world()

    async def scenario() -> Copies:
        whole = await build(world, world.archive(suffix="zip"))
        for objects in world.storage.objects.values():
            del objects[whole.manifest.object_key]
        return await build(world, world.archive(suffix="tar.gz"))

    assert run(scenario()).manifest.conversion
    assert world.source.asked["open"] == 2


def test_a_relative_whose_manifest_cannot_be_read_is_passed_over() -> None:
    world = a_world()
    damaged, relative = world.archive(suffix="zip"), world.archive(suffix="tar")
    world.storage.unreadable.add(damaged)

    with capture_logs() as logs:
        copies = run(build(world, relative))

    assert copies.regions == (EAST, WEST)
    failed = [line for line in logs if line["event"] == "input.failed"]
    assert [line["code"] for line in failed] == ["unreadable_manifest"]


def test_half_an_archive_is_made_into_nothing() -> None:
    world = a_world(Served(suffixes=("tar.gz",), verbatim=False))
    world.source.cut_at = 50

    with pytest.raises((TruncatedArchive, CorruptArchive)):
        run(build(world, world.archive(suffix="tar")))

    assert not any(world.storage.manifests.values())


def test_a_host_that_is_away_is_not_missed_where_a_relative_is_there() -> None:
    world = a_world()
    fresh = world.new_process()

    async def scenario() -> object:
        await build(world, world.archive(suffix="zip"))
        world.source.outage = SourceUnavailable("gone fishing")
        outcome = await request(fresh, world.wanted(suffix="tar.gz"))
        await world.engine.work(world.archiver)
        return outcome

    assert isinstance(run(scenario()), Pending)
    assert world.archive(suffix="tar.gz").key in world.storage.manifests[EAST]


def test_a_host_that_is_away_is_missed_where_nothing_is_there() -> None:
    world = a_world()
    world.source.outage = SourceUnavailable("gone fishing")

    with pytest.raises(SourceUnavailable):
        run(request(world.archiver, world.wanted(suffix="tar.gz")))


def test_a_conversion_tells_how_far_it_is() -> None:
    world = a_world()
    archive = world.archive(suffix="tar")
    attempt = FakeAttempt(archive=archive)

    run(world.archiver.build(archive, attempt))

    phases = list(dict.fromkeys(phase for phase, _ in attempt.reports))
    assert phases == [Phase.CONNECTING, Phase.FETCHING, Phase.CONVERTING, Phase.COMMITTING]


def test_the_status_names_the_address_that_is_fetched() -> None:
    world = a_world()

    status = run(world.archiver.status(world.archive(suffix="tar.gz")))

    assert status.source_url.endswith(f"{world.node}.zip/")


@pytest.mark.parametrize("dropped", (0, 1))
def test_a_copy_that_was_never_proven_is_proven_before_something_is_made_of_it(
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


def test_a_host_that_does_not_list_its_files_is_not_read_to_the_end() -> None:
    world = a_world()
    world.source.unlisted = UnprovenArchive("it lists nothing")

    with pytest.raises(UnprovenArchive):
        run(build(world, world.archive(suffix="zip")))

    assert not any(world.storage.manifests.values())


def test_a_tree_that_the_host_packs_in_one_format_alone_is_fetched_in_that() -> None:
    world = a_world(Served(suffixes=("tar.gz", "tar.bz2", "zip")))
    world.source.unfit.update(("tar.gz", "tar.bz2"))

    with capture_logs() as logs:
        manifest = run(build(world, world.archive())).manifest

    assert manifest.conversion
    assert manifest.conversion.key == world.archive(suffix="zip").key
    assert [line["code"] for line in logs if line["event"] == "format.failed"] == [
        "not_packable",
        "not_packable",
    ]


def test_a_tree_that_the_host_packs_in_no_format_fails_for_good() -> None:
    world = a_world(Served(suffixes=("zip",), spare=("tar.gz",)))
    world.source.unfit.update(("tar.gz", "zip"))

    with pytest.raises(NotPackable, match="zip") as raised:
        run(build(world, world.archive(suffix="zip")))

    assert not raised.value.retryable


def test_a_root_that_clients_do_not_expect_is_replaced() -> None:
    world = a_world(Served(suffixes=("tar.gz",)))
    world.source.web_name = "renamed"

    manifest = run(build(world, world.archive())).manifest

    assert manifest.root == f"ash-{world.node[:12]}"
    assert manifest.conversion
    assert manifest.conversion.key == manifest.key


def test_without_room_to_replace_a_root_nothing_of_the_archive_is_read() -> None:
    world = a_world(Served(suffixes=("tar.gz",)))
    world.source.web_name = "renamed"
    world.converter.full = True
    attempt = FakeAttempt(archive=world.archive())

    with pytest.raises(NoRoom):
        run(world.archiver.build(attempt.archive, attempt))

    assert {phase for phase, _ in attempt.reports} == {Phase.CONNECTING}
