"""Periodic work that one process of the fleet does at a time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The right of one process to do a piece of *work*. ``revision`` identifies it."""

    work: str
    revision: int


class Schedule(Protocol):
    """When each piece of work is due next. Work that was never done is due at once.

    Every method raises EngineUnavailable if its effect is not certain.
    """

    async def next_due(self, work: str) -> datetime | None:
        """Return when the work is due next; None if it was never done, or if that is unknown."""

    async def begin(self, work: str, *, until: datetime) -> Turn | None:
        """Take the turn at *work* if it is due; None if it is not, or if another process was first.

        *until* then, the turn belongs to this process, unless it is postponed.
        """

    async def postpone(self, turn: Turn, *, until: datetime) -> Turn | None:
        """Make the work due again *until* then: to keep a turn, or to end it.

        None if another process has taken the turn.
        """
