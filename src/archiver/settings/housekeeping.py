"""Settings of the work that keeps the buckets in order."""

from datetime import timedelta

from pydantic import Field

from archiver.settings.section import Section


class HousekeepingSettings(Section):
    """Periodic work on the buckets, done by one worker of the fleet at a time."""

    sweep_s: float = Field(default=86_400, ge=0, le=604_800)
    """Seconds between sweeps, which remove old objects that no manifest names, and old unfinished
    uploads. 0: no sweeps.
    """

    @property
    def sweep_interval(self) -> timedelta:
        return timedelta(seconds=self.sweep_s)
