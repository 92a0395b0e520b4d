"""Checks of the regions by one process of the fleet, also while no client needs them."""

from datetime import timedelta

from archiver.errors import StorageUnavailable
from archiver.ports.schedule import Schedule
from archiver.ports.storage import Storage
from archiver.region_answers import RegionAnswers
from archiver.upkeep.periodic import Periodic

EVERY = timedelta(seconds=2)

TURN = timedelta(seconds=20)
"""A check waits 3 s for a silent region, and is repeated once."""

WORK = "regions"


class RegionProbe:
    """One check of each region. It is always ``complete``."""

    complete = True

    def __init__(self, *, storage: Storage, answers: RegionAnswers) -> None:
        self._storage = storage
        self._answers = answers

    async def run(self) -> "RegionProbe":
        """Check each region, and note the answers."""
        for region, error in (await self._storage.check_access()).items():
            if error is None or isinstance(error, StorageUnavailable):
                self._answers.note(region, error)
        return self


async def probe_regions(*, storage: Storage, answers: RegionAnswers, schedule: Schedule) -> None:
    """Check the regions every few seconds, in one process of the fleet, until cancelled."""
    periodic = Periodic(schedule=schedule, work=WORK, interval=EVERY, turn=TURN)
    await periodic.keep_running(RegionProbe(storage=storage, answers=answers).run)
