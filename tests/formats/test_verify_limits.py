"""Limits on bytes, members, memory and time in all formats."""

import asyncio
import random
import tracemalloc

import pytest

from archiver.errors import ArchiveTooLarge
from archiver.formats.limits import RATIO_FROM_BYTES
from archiver.model import Limits
from tests.formats.samples import (
    GOOD,
    ROOT,
    TREE,
    an_archive,
    contents,
    each_suffix,
    packed,
    tar,
    verify_chunks,
)


@each_suffix
@pytest.mark.parametrize(
    "limits",
    (
        Limits(packed_bytes=100),
        Limits(unpacked_bytes=100),
        Limits(members=len(TREE) - 1),
    ),
)
def test_an_archive_over_a_limit_is_rejected(suffix: str, limits: Limits) -> None:
    with pytest.raises(ArchiveTooLarge):
        asyncio.run(verify_chunks(an_archive(suffix), [GOOD[suffix]], limits=limits))


@each_suffix
def test_an_archive_at_its_limits_is_accepted(suffix: str) -> None:
    inside = sum(len(content) for _, content in contents(suffix, GOOD[suffix]))
    limits = Limits(
        packed_bytes=len(GOOD[suffix]),
        unpacked_bytes=inside if suffix == "zip" else len(tar()),
        members=len(TREE),
    )

    asyncio.run(verify_chunks(an_archive(suffix), [GOOD[suffix]], limits=limits))


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_a_bomb_is_rejected_long_before_its_end(suffix: str) -> None:
    bomb = packed(suffix, {**TREE, f"{ROOT}/zeros": bytes(2 * RATIO_FROM_BYTES)})

    with pytest.raises(ArchiveTooLarge, match="200 times"):
        asyncio.run(verify_chunks(an_archive(suffix), [bomb]))


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_highly_compressed_input_takes_little_memory(suffix: str) -> None:
    data = packed(suffix, {f"{ROOT}/zeros": bytes(100_000_000)})

    tracemalloc.start()
    asyncio.run(verify_chunks(an_archive(suffix), [data]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(data) < 1_000_000
    assert peak < 16_000_000


def test_the_event_loop_runs_while_a_chunk_is_verified() -> None:
    noise = random.Random(1).randbytes(2_000_000)  # noqa: S311 - hard to compress
    data = packed("tar.bz2", {f"{ROOT}/noise": noise})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(tick())
            await verify_chunks(an_archive("tar.bz2"), [data])
            ticking.cancel()

    asyncio.run(play())

    assert ticks >= 10
