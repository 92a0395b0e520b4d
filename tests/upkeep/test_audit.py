"""The outcomes of audits, with fakes."""

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

from archiver.drift import Drift
from archiver.errors import SourceUnavailable
from archiver.formats.inventory import open_inventory
from archiver.formats.workspace import Workspace
from archiver.model import Archive, Region
from archiver.ports.source import ServedFormats
from archiver.ports.storage import Commit
from archiver.testing import FakeAttempt, FakeSource, GzipVerifier
from archiver.upkeep.audit import Auditor
from archiver.upkeep.finding import Finding, Outcome
from tests.memory_world import ASH, FILES, World

EAST, WEST = Region("us-east-1"), Region("us-west-2")
ONLY_ZIP = ServedFormats(suffixes=("zip",), verbatim=False)


def auditor(
    world: World, folder: Path, *, source: FakeSource | None = None, most_bytes: int = 1 << 30
) -> Auditor:
    """Return an auditor with *source* as the host, which may have changed since."""
    source = source or world.source
    return Auditor(
        sources={source.name: source},
        storage=world.storage,
        verify=GzipVerifier,
        converter=world.converter,
        keep=partial(open_inventory, workspace=Workspace(folder=folder, max_bytes=most_bytes)),
    )


def put(world: World, archive: Archive, data: bytes) -> None:
    """Make *data* the bytes of the archive in every region."""

    async def play() -> None:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield data

        verifier = GzipVerifier(archive, root=f"ash-{archive.node[:12]}", identity=None)
        await verifier.update(data)
        upload = await world.storage.upload(archive, chunks(), attempt="a1")
        await world.storage.commit(
            Commit(
                archive=archive,
                upload=upload,
                verified=await verifier.finish(),
                source_url="https://hg.example/ash",
            ),
            prove_lease=FakeAttempt(archive=archive).prove_lease,
        )

    asyncio.run(play())


def sent(world: World, archive: Archive) -> bytes:
    """Return the bytes that the host sends."""

    async def play() -> bytes:
        async with world.source.open(archive) as stream:
            return b"".join([chunk async for chunk in stream.chunks])

    return asyncio.run(play())


def code(finding: Finding) -> str | None:
    return finding.failure.code if finding.failure else None


def audit(
    world: World, archive: Archive, by: Auditor, *, before: Callable[[], object] = lambda: None
) -> Finding:
    """Build the archive if it is missing, call *before*, and audit it."""

    async def play() -> Finding:
        if not (await world.storage.find(archive)).copies:
            await world.archiver.build(archive, FakeAttempt(archive=archive))
        before()
        state = repr((world.storage.objects, world.storage.manifests))
        finding = await by.audit(archive, lambda _, __: None)
        assert repr((world.storage.objects, world.storage.manifests)) == state
        return finding

    return asyncio.run(play())


@pytest.mark.parametrize("suffix", ("tar.gz", "tar.zst"))
def test_identical_bytes_are_the_same(tmp_path: Path, suffix: str) -> None:
    world = World()

    finding = audit(world, world.archive(suffix=suffix), auditor(world, tmp_path))

    assert finding.outcome is Outcome.SAME
    assert finding.manifest
    assert finding.fetched
    assert finding.fetched.sha256 == finding.manifest.sha256
    assert world.source.asked["open"] == 2
    assert not any(tmp_path.iterdir())


def test_a_converted_archive_is_converted_again_even_if_the_host_serves_its_format(
    tmp_path: Path,
) -> None:
    world = World(source=FakeSource(served=ONLY_ZIP))
    now = FakeSource(served=ServedFormats(suffixes=("tar.gz",)))
    assert now.commit(ASH, FILES) == world.node

    finding = audit(world, world.archive(), auditor(world, tmp_path, source=now))

    assert finding.outcome is Outcome.SAME
    assert finding.fetched
    assert finding.fetched.conversion
    assert finding.fetched.conversion.key == world.archive().key


def test_equal_members_in_other_bytes_are_repacked(tmp_path: Path) -> None:
    world = World()
    archive = world.archive()
    put(world, archive, gzip.compress(gzip.decompress(sent(world, archive)), 1, mtime=5))

    finding = audit(world, archive, auditor(world, tmp_path))

    assert finding.outcome is Outcome.REPACKED
    assert finding.drift == Drift(members=0, differences=(), reordered=False)
    assert finding.fetched
    assert finding.manifest
    assert finding.fetched.sha256 != finding.manifest.sha256


@pytest.mark.parametrize("served", (None, ONLY_ZIP))
def test_a_changed_member_differs_and_is_reported(
    tmp_path: Path, served: ServedFormats | None
) -> None:
    world = World()
    archive = world.archive()
    tar = gzip.decompress(sent(world, archive))
    put(world, archive, gzip.compress(tar.replace(b"read me", b"read it")))
    now = FakeSource(served=served) if served else world.source
    now.commit(ASH, FILES)

    finding = audit(world, archive, auditor(world, tmp_path, source=now))

    assert finding.outcome is Outcome.DIFFERS
    assert finding.drift
    readme = finding.drift.differences[0]
    assert (readme.name, readme.aspects[-1]) == (
        f"ash-{world.node[:12]}/README".encode(),
        "content",
    )
    assert readme.stored
    assert readme.stored.sha256 == hashlib.sha256(b"read it").hexdigest()
    assert readme.fetched
    assert readme.fetched.sha256 == hashlib.sha256(b"read me").hexdigest()


def test_a_damaged_copy_is_corrupt(tmp_path: Path) -> None:
    world = World()
    archive = world.archive()
    put(world, archive, gzip.compress(b"something else"))
    for objects in world.storage.objects.values():
        for key in objects:
            objects[key] = b"!" + objects[key][1:]

    finding = audit(world, archive, auditor(world, tmp_path))

    assert (finding.outcome, finding.region) == (Outcome.CORRUPT, EAST)
    assert finding.fetched


def test_an_unreadable_copy_is_read_in_another_region(tmp_path: Path) -> None:
    world = World()
    archive = world.archive()
    put(world, archive, gzip.compress(gzip.decompress(sent(world, archive)), 1))
    world.storage.objects[EAST].clear()

    assert audit(world, archive, auditor(world, tmp_path)).outcome is Outcome.REPACKED

    lose = world.storage.objects[WEST].clear
    finding = audit(world, archive, auditor(world, tmp_path), before=lose)
    assert (finding.outcome, code(finding)) == (Outcome.LOST, None)
    assert finding.manifest
    assert finding.fetched
    assert finding.fetched.sha256 != finding.manifest.sha256


def lose(world: World) -> None:
    for objects in world.storage.objects.values():
        objects.clear()


def test_bytes_lost_in_every_region_are_lost_even_if_the_host_sends_them(tmp_path: Path) -> None:
    world = World()

    finding = audit(world, world.archive(), auditor(world, tmp_path), before=partial(lose, world))

    assert (finding.outcome, code(finding)) == (Outcome.LOST, None)
    assert finding.manifest
    assert finding.fetched
    assert finding.fetched.sha256 == finding.manifest.sha256


def test_bytes_lost_in_every_region_are_lost_whatever_the_host_sends(tmp_path: Path) -> None:
    world = World()
    by = auditor(world, tmp_path, source=FakeSource())

    finding = audit(world, world.archive(), by, before=partial(lose, world))

    assert (finding.outcome, code(finding)) == (Outcome.LOST, "unknown_repo")


@pytest.mark.parametrize("trouble", ("down", "blind"))
def test_an_archive_in_an_unreachable_region_is_unchecked(tmp_path: Path, trouble: str) -> None:
    world = World()

    def disturb() -> None:
        world.storage.objects[EAST].clear()
        getattr(world.storage, trouble).add(WEST)

    finding = audit(world, world.archive(), auditor(world, tmp_path), before=disturb)

    assert (finding.outcome, code(finding)) == (Outcome.UNCHECKED, "storage_unavailable")
    assert finding.fetched


def test_an_archive_that_the_host_no_longer_has_is_gone(tmp_path: Path) -> None:
    world = World()

    finding = audit(world, world.archive(), auditor(world, tmp_path, source=FakeSource()))

    assert (finding.outcome, code(finding)) == (Outcome.GONE, "unknown_repo")


def test_without_source_manifest_or_room_an_archive_is_unchecked(tmp_path: Path) -> None:
    world = World()
    archive = world.archive()
    strange = auditor(world, tmp_path, source=FakeSource(name="other"))
    narrow = auditor(world, tmp_path, most_bytes=1)

    for by, expected in ((strange, "unknown_source"), (narrow, "no_room")):
        finding = audit(world, archive, by)
        assert (finding.outcome, code(finding)) == (Outcome.UNCHECKED, expected)

    for manifests in world.storage.manifests.values():
        manifests.clear()
    by = auditor(world, tmp_path)
    finding = asyncio.run(by.audit(archive, lambda _, __: None))
    assert (finding.outcome, code(finding)) == (Outcome.UNCHECKED, "storage_unavailable")


def test_without_room_for_a_conversion_an_audit_sends_no_request(tmp_path: Path) -> None:
    world = World(source=FakeSource(served=ONLY_ZIP))

    def fill() -> None:
        world.source.asked.clear()
        world.converter.full = True

    finding = audit(world, world.archive(), auditor(world, tmp_path), before=fill)
    assert (finding.outcome, code(finding)) == (Outcome.UNCHECKED, "no_room")
    assert not world.source.asked


def test_a_failed_host_leaves_the_archive_unchecked_with_the_code(tmp_path: Path) -> None:
    world = World()
    by = auditor(world, tmp_path)

    def cut() -> None:
        world.source.cut_at = 50

    def go_away() -> None:
        world.source.outage = SourceUnavailable("gone fishing")

    for before, expected in ((cut, "truncated_archive"), (go_away, "source_unavailable")):
        finding = audit(world, world.archive(), by, before=before)
        assert (finding.outcome, code(finding)) == (Outcome.UNCHECKED, expected)
        assert finding.fetched is None


def test_differing_bytes_that_cannot_be_compared_by_members_differ(tmp_path: Path) -> None:
    world = World()
    archive = world.archive()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        device = tarfile.TarInfo("ash/device")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    put(world, archive, buffer.getvalue())

    finding = audit(world, archive, auditor(world, tmp_path))

    assert (finding.outcome, code(finding)) == (Outcome.DIFFERS, "not_convertible")
    assert finding.drift is None


def test_a_sample_is_a_subset_that_its_seed_determines(tmp_path: Path) -> None:
    world = World()
    archives = [world.archive(f"part{number}") for number in range(50)]
    for archive in archives:
        put(world, archive, gzip.compress(b""))
    put(world, replace(world.archive(), source="other"), gzip.compress(b""))
    by = auditor(world, tmp_path)

    def sample(size: int, seed: int, source: str | None = "hgmo") -> list[Archive]:
        return asyncio.run(by.sample(size, source=source, random=Random(seed)))  # noqa: S311

    assert len(set(sample(7, 1))) == 7
    assert sample(7, 1) == sample(7, 1) != sample(7, 2)
    assert set(sample(99, 1)) == set(archives)
    assert len(sample(99, 1, None)) == 51
    drawn = Counter(archive for seed in range(400) for archive in sample(5, seed))
    assert set(drawn) == set(archives)
    assert max(drawn.values()) < 90  # 40 are to be expected


@pytest.mark.parametrize("still", (True, False))
def test_a_truncated_copy_is_incomplete(tmp_path: Path, *, still: bool) -> None:
    world = World(source=FakeSource(served=ONLY_ZIP))
    world.source.dropped, world.source.trusted = 1, True

    def begin_to_check() -> None:
        world.source.dropped, world.source.trusted = int(still), False

    finding = audit(
        world, world.archive(suffix="zip"), auditor(world, tmp_path), before=begin_to_check
    )

    assert finding.outcome is Outcome.INCOMPLETE
    assert code(finding) == ("incomplete_archive" if still else None)
    assert (finding.drift.members if finding.drift else None) == (None if still else 1)


def test_a_whole_copy_is_not_incomplete_when_the_host_breaks_off(tmp_path: Path) -> None:
    world = World(source=FakeSource(served=ONLY_ZIP))

    def break_off() -> None:
        world.source.dropped = 1

    finding = audit(world, world.archive(suffix="zip"), auditor(world, tmp_path), before=break_off)

    assert finding.outcome is Outcome.UNCHECKED
    assert code(finding) == "incomplete_archive"


def test_a_copy_from_a_fallback_format_is_made_from_it_again(tmp_path: Path) -> None:
    world = World(source=FakeSource(served=ServedFormats(suffixes=("tar.gz", "zip"))))
    world.source.unfit.add("tar.gz")

    finding = audit(world, world.archive(suffix="tar.gz"), auditor(world, tmp_path))

    assert finding.outcome is Outcome.SAME
    assert not any(tmp_path.iterdir())
