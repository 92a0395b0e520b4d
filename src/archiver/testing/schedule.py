"""A schedule in the memory of one process."""

from datetime import UTC, datetime

from archiver.errors import EngineUnavailable
from archiver.ports.schedule import Turn


class MemorySchedule:
    """Implements ``Schedule``. ``due_at`` has the time of each piece of work; tests may change it.

    ``down`` makes it unavailable.
    """

    def __init__(self) -> None:
        self.down = False
        self.due_at: dict[str, datetime] = {}
        self._revisions: dict[str, int] = {}

    async def next_due(self, work: str) -> datetime | None:
        self._raise_if_down()
        return self.due_at.get(work)

    async def begin(self, work: str, *, until: datetime) -> Turn | None:
        self._raise_if_down()
        now = datetime.now(UTC)
        if self.due_at.get(work, now) > now:
            return None
        turn = Turn(work=work, revision=self._revisions.get(work, 0))
        return await self.postpone(turn, until=until)

    async def postpone(self, turn: Turn, *, until: datetime) -> Turn | None:
        self._raise_if_down()
        if turn.revision != self._revisions.get(turn.work, 0):
            return None
        self._revisions[turn.work] = turn.revision + 1
        self.due_at[turn.work] = until
        return Turn(work=turn.work, revision=turn.revision + 1)

    def _raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")
