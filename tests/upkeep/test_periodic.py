"""When periodic work is done."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.runtime.tasks import in_background
from archiver.testing import MemorySchedule
from archiver.upkeep.periodic import Periodic
from tests.parts.fleet import HUNG_AFTER_S

WORK, DAY = "dust", timedelta(days=1)


@dataclass(frozen=True)
class Done:
    complete: bool = True


def test_one_process_alone_does_its_work_when_it_is_due() -> None:
    """And not at the end of an interval of its own, which begins with the process."""
    schedule, done = MemorySchedule(), asyncio.Event()
    schedule.due_at[WORK] = datetime.now(UTC)
    periodic = Periodic(schedule=schedule, work=WORK, interval=DAY)

    async def work() -> Done:
        done.set()
        return Done()

    async def play() -> None:
        async with in_background(periodic.keep_running(work)), asyncio.timeout(HUNG_AFTER_S):
            await done.wait()

    asyncio.run(play())
