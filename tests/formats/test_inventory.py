"""The inventory of a stored archive."""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from archiver.drift import Content
from archiver.errors import NoRoom
from archiver.formats.inventory import open_inventory
from archiver.formats.workspace import Workspace
from archiver.model import SUFFIXES
from tests.formats.samples import an_archive
from tests.formats.trees import RICH, Item, pack


def members(data: bytes, suffix: str, folder: Path) -> list[Content]:
    async def play() -> list[Content]:
        keep = partial(open_inventory, workspace=Workspace(folder=folder, max_bytes=1 << 30))
        with keep(an_archive(suffix), size_bytes=len(data)) as kept:
            for start in range(0, len(data), 10_000):
                await kept.write(data[start : start + 10_000])
            return [content async for some in kept.iter_members() for content in some]

    return asyncio.run(play())


def expected(items: Sequence[Item]) -> list[Content]:
    return [
        Content(
            name=item.name.encode(),
            kind="link" if item.link else "file",
            mode=item.mode,
            mtime=item.mtime,
            link=item.link.encode(),
            size_bytes=len(item.content),
            sha256="" if item.link else hashlib.sha256(item.content).hexdigest(),
        )
        for item in items
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_are_the_same_in_every_format(suffix: str, tmp_path: Path) -> None:
    assert members(pack(RICH, suffix), suffix, tmp_path) == expected(RICH)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ("tar", "zip"))
def test_an_archive_may_have_many_members(suffix: str, tmp_path: Path) -> None:
    many = [Item(path=f"{number:06}") for number in range(10_000)]

    assert members(pack(many, suffix), suffix, tmp_path) == expected(many)


def test_an_archive_that_does_not_fit_is_rejected_and_leaves_nothing(tmp_path: Path) -> None:
    keep = partial(open_inventory, workspace=Workspace(folder=tmp_path, max_bytes=1))

    with pytest.raises(NoRoom), keep(an_archive("tar"), size_bytes=2):
        pass

    assert not any(tmp_path.iterdir())
