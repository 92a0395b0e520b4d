"""The benchmarks' faraway regions through Archiver's own storage."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.model import Copies
from archiver.storage.regional_storage import open_storage
from benchmarks.alone import buckets
from benchmarks.inputs import Inputs
from benchmarks.lab import Lab
from tests.storage.conftest import LARGE, an_archive, store


@pytest.mark.parametrize("size_bytes", (4, 100_000, LARGE))
def test_a_stored_archive_is_found(size_bytes: int, tmp_path: Path) -> None:
    async def scenario(settings: Mapping[str, str]) -> tuple[Copies, Copies | None]:
        archive = an_archive()
        async with open_storage(buckets(settings["ARCHIVER_REGIONS"])) as storage:
            assert not (await storage.find(archive)).copies
            stored = await store(storage, archive, bytes(size_bytes))
            return stored, (await storage.find(archive)).copies

    lab = Lab(inputs=Inputs(tmp_path, quick=True), folder=tmp_path, rounds=1)
    with lab.faraway() as settings:
        stored, found = asyncio.run(scenario(settings))

    assert len(stored.regions) == 2
    assert found == stored
