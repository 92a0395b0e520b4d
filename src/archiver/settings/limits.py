"""Settings of the limits of one client."""

from pydantic import Field

from archiver.settings.section import Section


class LimitsSettings(Section):
    """Limits of one client. 0: no limit."""

    open_tasks: int = Field(default=50, ge=0)
    """Tasks of one client that may wait or run at a time, in the whole fleet."""
    deferred_tasks: int = Field(default=2000, ge=0)
    """Tasks of one client for `POST /archiver/tasks` that may wait or run at a time, besides
    `open_tasks`. Batches never take more than a quarter of `sources.NAME.queue_max`, and all tasks
    without urgency not more than half.
    """
    tasks_per_minute: int = Field(default=60, ge=0)
    """Tasks that one client may have created in a minute."""
    lookups_per_minute: int = Field(default=120, ge=0)
    """Lookups of revs and nodes that Archiver does not know yet, for one client in a minute."""
