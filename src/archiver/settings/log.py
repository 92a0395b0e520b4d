"""Settings of the log."""

from typing import Literal

from pydantic import Field

from archiver.settings.section import Section
from archiver.telemetry import LogFormat


class LogSettings(Section):
    """The log, on standard error."""

    format: LogFormat = LogFormat.CONSOLE
    """`console`, `json` or `mozlog`."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level to log."""
    hits_interval_s: float = Field(default=10, ge=0, le=3600)
    """Seconds over which hits, and misses that join a task, are counted in one line per source. 0:
    one line per request.
    """
