"""Uses of archives are recorded in batches, once per day."""

import asyncio
from collections.abc import Collection
from datetime import date, timedelta

import pytest

from archiver.errors import EngineUnavailable
from archiver.runtime.tasks import in_background
from archiver.testing import MemoryLastUses
from archiver.upkeep.use_recorder import UseRecorder
from tests.memory_world import World
from tests.web.client import DEFAULT, client

DAY = date(2026, 11, 27)
SOON = timedelta(milliseconds=5)


def test_an_archive_is_recorded_once_a_day() -> None:
    async def play() -> None:
        uses, days = MemoryLastUses(), [DAY]
        recorder = UseRecorder(uses=uses, today=lambda: days[0])
        for _ in range(3):
            for _ in range(100):
                recorder.note("a")
            await recorder.record()
        assert (uses.writes, uses.days) == (1, {"a": DAY})
        days[0] += timedelta(days=1)
        await recorder.record()
        recorder.note("a")
        await recorder.record()
        assert (uses.writes, uses.days) == (2, {"a": days[0]})

    asyncio.run(play())


def test_uses_during_an_outage_are_recorded_after_it() -> None:
    async def play() -> None:
        uses = MemoryLastUses()
        uses.outage = EngineUnavailable("away")
        recorder = UseRecorder(uses=uses, today=lambda: DAY)
        recorder.note("a")
        await recorder.record()
        uses.outage = None
        await recorder.record()
        assert uses.days == {"a": DAY}

    asyncio.run(play())


@pytest.mark.parametrize("is_away", (False, True))
def test_an_ending_process_records_what_it_noted(*, is_away: bool) -> None:
    async def play() -> None:
        uses = MemoryLastUses()
        recorder = UseRecorder(uses=uses, interval=timedelta(hours=1), today=lambda: DAY)
        async with in_background(recorder.record_regularly()):
            await asyncio.sleep(0)
            recorder.note("a")
            uses.outage = EngineUnavailable("away") if is_away else None
        assert uses.days == ({} if is_away else {"a": DAY})

    asyncio.run(play())


class SilentUses(MemoryLastUses):
    async def record(self, key_hashes: Collection[str], day: date) -> None:  # noqa: ARG002
        await asyncio.Event().wait()


def test_an_ending_process_does_not_fail_because_the_engine_is_silent() -> None:
    async def play() -> None:
        recorder = UseRecorder(uses=SilentUses(), interval=timedelta(hours=1), today=lambda: DAY)
        recording = asyncio.create_task(recorder.record_regularly())
        await asyncio.sleep(0)
        recorder.note("a")
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording

    asyncio.run(play())


def test_memory_is_bounded() -> None:
    """Of many archives, the first are noted; and those of today are forgotten to make room."""

    async def play() -> None:
        uses = MemoryLastUses()
        recorder = UseRecorder(uses=uses, archives_max=10, today=lambda: DAY)
        for number in range(50):
            recorder.note(str(number))
        await recorder.record()
        assert uses.writes == 10
        recorder.note("another")
        await recorder.record()
        recorder.note("0")
        await recorder.record()
        assert uses.writes == 12, "it had room for ten"

    asyncio.run(play())


def test_every_way_to_an_archive_counts_as_a_use() -> None:
    """Also a redirect that is repeated from memory, without a look at the archive."""
    with client(World()) as web:
        web.get(DEFAULT)
        web.work()
        used: list[str] = []
        web.state.archiver.hits.add(used.append)
        sha256 = web.get(DEFAULT).headers["archiver-sha256"]
        file = DEFAULT.replace("/archiver/", "/get/") + ".tar.gz"
        for target in (DEFAULT, DEFAULT, DEFAULT, file, f"{file}.sha256", f"/sha256/{sha256}"):
            before = len(used)
            assert web.get(target).status in {200, 302}
            assert len(used) == before + 1
        assert set(used) == {web.world.archive().key_hash}
        before = len(used)
        assert web.get(f"{DEFAULT}?suffix=zip").status == 202
        assert len(used) == before
