"""Archives that hgweb truncates or packs unusually, with real parts."""

import asyncio
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.errors import EmptyTree, IncompleteArchive, NotPackable, UnprovenArchive
from archiver.model import Completeness, Manifest, Node
from archiver.ports.source import ServedFormats
from tests.broken_repositories import (
    ALL,
    DAMAGED,
    EAST,
    LATIN,
    ONLY_ZIP,
    LocalArchiver,
    archive_of,
    build_damaged,
    commit,
    damage,
    names,
)
from tests.parts.hgweb import Hgweb


@pytest.fixture
def local(lenient: Hgweb, tmp_path: Path) -> LocalArchiver:
    return LocalArchiver(host=lenient, folder=tmp_path)


def test_a_truncated_but_valid_zip_is_refused(local: LocalArchiver) -> None:
    sent, error = build_damaged(local)

    assert sent[-1].endswith("a/f4.txt")
    assert error.retryable
    assert "'a/f4.txt'" in error.message
    assert "'z/last'" in error.message
    assert not any(local.storage.manifests.values())


def test_without_listings_completeness_is_not_proven(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {f"f{number}": b"x" for number in range(9)})
    damage(repository, "f5")
    archive = archive_of(repository, node, "zip")

    with pytest.raises(UnprovenArchive) as raised:
        asyncio.run(local.build(archive, ONLY_ZIP))
    assert raised.value.retryable

    trusting = asyncio.run(local.build(archive, ONLY_ZIP, trusted=True))
    assert trusting.completeness is Completeness.TRUSTED


@pytest.mark.thorough
def test_an_unproven_copy_is_checked_before_its_conversion(local: LocalArchiver) -> None:
    repository, node = commit(local.host, DAMAGED)
    damage(repository, "a/f5.txt")

    async def play() -> None:
        await local.build(archive_of(repository, node, "zip"), ONLY_ZIP, trusted=True)
        await local.build(archive_of(repository, node, "tar.zst"), ONLY_ZIP)

    with pytest.raises(IncompleteArchive):
        asyncio.run(play())

    assert len(local.storage.manifests[EAST]) == 1


@pytest.mark.parametrize(
    ("suffix", "subdir", "made"),
    (
        ("zip", "", "tar.zst"),
        ("tar.gz", "", ""),
        ("tar.bz2", "a", ""),
        ("zip", "a-b.txt", ""),
        ("zip", "d", ""),
    ),
)
def test_a_whole_archive_and_its_conversions_are_proven(
    local: LocalArchiver, suffix: str, subdir: str, made: str
) -> None:
    files = {".a": b"", "a-b.txt": b"x", "a/x": b"", "a/y/z": b"", f"d/{LATIN}/x": b""}
    if suffix == "zip":
        files = {name: content for name, content in files.items() if LATIN not in name}
        files["d/e/f/g"] = b"deep"
    repository, node = commit(local.host, files)

    async def play() -> Manifest:
        manifest = await local.build(archive_of(repository, node, suffix, subdir), ALL)
        assert manifest.conversion is None
        if made:
            wanted = archive_of(repository, node, made, subdir)
            manifest = await local.build(wanted, replace(ALL, verbatim=False))
            assert manifest.conversion
        return manifest

    assert asyncio.run(play()).completeness is Completeness.PROVEN


def test_a_file_name_that_hgweb_cannot_write_to_a_zip_is_reported(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {"a": b"", LATIN: b"", "z": b""})

    with pytest.raises(NotPackable) as raised:
        asyncio.run(local.build(archive_of(repository, node, "zip"), ONLY_ZIP))

    assert not raised.value.retryable
    assert r"caf\\xe9.txt" in raised.value.message


def test_an_unpackable_format_is_converted_from_a_packable_one(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {"a": b"", LATIN: b"latin", "z": b""})
    zip_only_at_first = replace(ONLY_ZIP, fallback=("tar.gz",))

    manifest = asyncio.run(local.build(archive_of(repository, node, "zip"), zip_only_at_first))

    assert manifest.conversion
    assert manifest.conversion.key.endswith("/tar.gz")
    assert len(names(local.stored(manifest))) == 4


def test_a_date_before_1970_is_served_by_way_of_another_format(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {"a": b"old"}, date="-86400 0")

    manifest = asyncio.run(local.build(archive_of(repository, node, "tar.gz"), ALL))

    assert manifest.conversion
    assert manifest.conversion.key.endswith("/tar.bz2")
    with tarfile.open(fileobj=io.BytesIO(local.stored(manifest))) as tar:
        assert {member.mtime for member in tar} == {-86400}


def test_a_date_before_1970_is_reported_without_another_format(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {"a": b"old"}, date="-86400 0")
    archive = archive_of(repository, node, "tar.gz")

    with pytest.raises(NotPackable, match="-86400"):
        asyncio.run(local.build(archive, ServedFormats(suffixes=("tar.gz",))))


def test_a_changeset_without_files_is_reported_as_empty(local: LocalArchiver) -> None:
    repository, _ = commit(local.host, {"a": b""})
    repository.hg("remove", "--quiet", "a")
    node = Node(repository.commit(message="Remove all"))

    for trusted in (False, True):
        with pytest.raises(EmptyTree, match="has no files"):
            asyncio.run(local.build(archive_of(repository, node, "zip"), ONLY_ZIP, trusted=trusted))


@pytest.mark.parametrize("suffix", ("zip", "tar.gz"))
def test_a_tracked_hg_archival_txt_is_an_ordinary_file(local: LocalArchiver, suffix: str) -> None:
    note = b"repo: 0\nnode: %b\n" % (b"a" * 40)
    repository, node = commit(local.host, {".hg_archival.txt": note, ".aaa": b"", "z": b""})

    manifest = asyncio.run(local.build(archive_of(repository, node, suffix), ALL))

    assert manifest.completeness is Completeness.PROVEN


def test_a_configured_repository_name_does_not_change_the_root(
    local: LocalArchiver,
) -> None:
    repository, node = commit(local.host, {"a": b"a", "b/c": b"c"})
    (repository.path / ".hg/hgrc").write_text("[web]\nname = The New Name\n")

    async def play() -> tuple[Manifest, Manifest]:
        first = await local.build(archive_of(repository, node, "zip"), ALL)
        wanted = archive_of(repository, node, "tar", "b")
        return first, await local.build(wanted, replace(ALL, verbatim=False))

    manifest, part = asyncio.run(play())

    root = f"{repository.path.name}-{node[:12]}"
    assert manifest.root == part.root == root
    assert manifest.conversion
    assert manifest.conversion.key == manifest.key
    with tarfile.open(fileobj=io.BytesIO(local.stored(part))) as tar:
        assert tar.getnames() == [f"{root}/b/c"]
