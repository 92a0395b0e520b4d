"""What ``FakeSource`` promises beyond the contract of ``ports.Source``."""

import asyncio
import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from archiver.errors import (
    ArchiverError,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
)
from archiver.model import Archive, Node
from archiver.ports.source import ServedFormats
from archiver.testing import FakeSource
from tests.memory_world import ASH, World


def fetched(source: FakeSource, archive: Archive) -> tuple[str, bytes]:
    """Return the root that the source announces, and the bytes that it sends."""

    async def fetch() -> tuple[str, bytes]:
        async with source.open(archive) as stream:
            return stream.root, b"".join([chunk async for chunk in stream.chunks])

    return asyncio.run(fetch())


def members(suffix: str, data: bytes) -> list[str]:
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return packed.namelist()
    with tarfile.open(fileobj=io.BytesIO(data)) as packed_tar:
        return packed_tar.getnames()


@pytest.mark.parametrize("suffix", ("tar.gz", "tar.bz2", "zip"))
def test_a_source_sends_an_archive_with_its_root(suffix: str) -> None:
    world = World(source=FakeSource(served=ServedFormats(suffixes=(suffix,))))
    root, data = fetched(world.source, replace(world.archive("testing"), suffix=suffix))
    assert root == f"ash-{world.node[:12]}"
    assert members(suffix, data) == [
        f"{root}/testing/mozharness/a.py",
        f"{root}/testing/mozharness/b/c.py",
    ]


def test_a_whole_tree_names_its_changeset() -> None:
    world = World()
    root, data = fetched(world.source, world.archive())
    assert f"{root}/.hg_archival.txt" in members("tar.gz", data)


def test_a_source_sends_the_same_bytes_each_time() -> None:
    world = World()
    assert fetched(world.source, world.archive()) == fetched(world.source, world.archive())


@pytest.mark.parametrize(
    ("changes", "error"),
    (
        ({"repo": "nowhere"}, UnknownRepo),
        ({"node": Node("0" * 40)}, UnknownRev),
        ({"subdir": "test"}, UnknownSubdir),
        ({"suffix": "zip"}, SuffixRefused),
    ),
)
def test_a_source_refuses_archives_that_it_lacks(
    changes: dict[str, str], error: type[ArchiverError]
) -> None:
    world = World()
    with pytest.raises(error):
        fetched(world.source, replace(world.archive(), **changes))  # type: ignore[arg-type]  # by name


def test_a_name_moves_with_its_commit_and_a_prefix_must_be_unique() -> None:
    source = FakeSource()
    nodes = [source.commit(ASH, {"a": b"%d" % n}, "default") for n in range(20)]
    assert len(set(nodes)) == 20
    assert asyncio.run(source.resolve(ASH, "default")) == nodes[-1]
    assert asyncio.run(source.resolve(ASH, nodes[3][:12])) == nodes[3]
    shared = next(n[0] for n in nodes if sum(m[0] == n[0] for m in nodes) > 1)
    with pytest.raises(UnknownRev):
        asyncio.run(source.resolve(ASH, shared))
