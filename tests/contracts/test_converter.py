"""The contract of ``ports.Converter``, for the fake and the real one."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import product
from pathlib import Path

import pytest

from archiver.errors import BadArchive, CorruptArchive, NoRoom, UnknownSubdir
from archiver.formats.convert import ProcessConverter
from archiver.formats.workspace import Workspace
from archiver.model import SUFFIXES
from archiver.ports.formats import Converter
from archiver.testing import FakeConverter
from tests.formats.samples import ROOT, TREE, an_archive, contents, packed

PART = {name: content for name, content in TREE.items() if name.startswith(f"{ROOT}/testing/")}


@pytest.fixture(params=("fake", "real"))
def converter(request: pytest.FixtureRequest, tmp_path: Path) -> Converter:
    if request.param == "fake":
        return FakeConverter()
    return ProcessConverter(workspace=Workspace(folder=tmp_path, max_bytes=1 << 30), threads=2)


async def chunks(data: bytes, failure: Exception | None = None) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]
    if failure:
        raise failure


def converted(
    converter: Converter,
    data: bytes,
    given: str,
    wanted: str,
    *,
    subdir: str = "",
    failure: Exception | None = None,
) -> bytes:
    async def play() -> bytes:
        async with converter.convert(
            chunks(data, failure),
            original=an_archive(given),
            target=an_archive(wanted, subdir),
            root=ROOT,
        ) as pieces:
            return b"".join([piece async for piece in pieces])

    return asyncio.run(play())


@pytest.mark.thorough
@pytest.mark.parametrize(("given", "wanted"), tuple(product(SUFFIXES, SUFFIXES)))
def test_every_format_converts_to_every_format(
    converter: Converter, given: str, wanted: str
) -> None:
    data = converted(converter, packed(given), given, wanted)

    assert contents(wanted, data) == list(TREE.items())


@pytest.mark.parametrize("given", SUFFIXES)
@pytest.mark.parametrize("wanted", ("tar", "zip"))
def test_a_subdir_is_extracted(converter: Converter, given: str, wanted: str) -> None:
    data = converted(converter, packed(given), given, wanted, subdir="testing/mozharness")

    assert contents(wanted, data) == list(PART.items())


def test_a_subdir_may_be_a_file(converter: Converter) -> None:
    data = converted(converter, packed("zip"), "zip", "tar", subdir="README")

    assert contents("tar", data) == [(f"{ROOT}/README", TREE[f"{ROOT}/README"])]


@pytest.mark.parametrize("subdir", ("nowhere", "test", "testing/mozharness/run.py/x"))
@pytest.mark.parametrize("given", ("zip", "tar.gz"))
def test_a_missing_subdir_is_unknown(converter: Converter, given: str, subdir: str) -> None:
    with pytest.raises(UnknownSubdir):
        converted(converter, packed(given), given, "tar.gz", subdir=subdir)


@pytest.mark.parametrize("given", ("zip", "tar.gz"))
def test_the_failure_of_the_original_ends_the_conversion(converter: Converter, given: str) -> None:
    with pytest.raises(CorruptArchive, match="as told"):
        converted(converter, packed(given), given, "tar", failure=CorruptArchive("as told"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_converter_has_a_version_for_every_format(converter: Converter, suffix: str) -> None:
    assert converter.version(suffix)


def test_room_is_required_to_read_or_write_a_zip(tmp_path: Path) -> None:
    narrow = ProcessConverter(workspace=Workspace(folder=tmp_path, max_bytes=1), threads=1)
    ample = ProcessConverter(workspace=Workspace(folder=tmp_path, max_bytes=1 << 30), threads=1)
    tar, zipped = an_archive("tar.gz"), an_archive("zip")
    for given, wanted in ((zipped, tar), (tar, zipped), (zipped, zipped)):
        ample.require_room(original=given, target=wanted)
        with pytest.raises(NoRoom):
            narrow.require_room(original=given, target=wanted)
    with pytest.raises(NoRoom):
        ample.require_room(original=zipped, target=tar, size_bytes=2 << 30)
    narrow.require_room(original=tar, target=tar)


def test_an_unverified_original_that_is_not_an_archive_is_rejected(tmp_path: Path) -> None:
    real = ProcessConverter(workspace=Workspace(folder=tmp_path, max_bytes=1 << 30), threads=2)
    for given in SUFFIXES:
        for data in (b"", b"<html>", packed(given)[:100]):
            with pytest.raises(BadArchive):
                converted(real, data, given, "tar")
