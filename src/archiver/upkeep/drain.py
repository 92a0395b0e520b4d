"""Has workers drain, and follows them until they are gone."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from archiver.model import TaskId
from archiver.ports.queue import Fleet, WorkerReport

POLL = timedelta(seconds=1)

ABSENCES = 3
"""A worker that connects again is absent for a moment."""


class DrainState(StrEnum):
    """What an order to drain has led to."""

    DRAINING = "draining"
    GONE = "gone"
    """No process listens under this name any longer."""
    SILENT = "silent"
    """The process is there and does not answer, because it is frozen or very busy."""
    UNSUPPORTED = "unsupported"
    """The worker's release cannot drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """A worker at a moment: *running* are the tasks that it still runs."""

    worker: str
    state: DrainState
    running: tuple[TaskId, ...] = ()


OnChange = Callable[[Drained], None]


class Drainer:
    """Has the workers of a *fleet* drain. ``states`` has the last one of each."""

    def __init__(
        self, *, fleet: Fleet, on_change: OnChange = lambda _: None, poll: timedelta = POLL
    ) -> None:
        self.states: dict[str, Drained] = {}
        self._fleet = fleet
        self._on_change = on_change
        self._poll_s = poll.total_seconds()
        self._absences: dict[str, int] = {}

    async def workers(self) -> Sequence[WorkerReport]:
        """Return the reports of the workers that answer. Raises EngineUnavailable."""
        return sorted(await self._fleet.workers(), key=lambda report: report.name)

    async def order(self, reports: Collection[WorkerReport]) -> None:
        """Have these workers drain, if their releases can. Raises EngineUnavailable."""
        able = [report.name for report in reports if report.draining is not None]
        for report in reports:
            if report.name not in able:
                self._note(Drained(worker=report.name, state=DrainState.UNSUPPORTED))
        answers = await asyncio.gather(*map(self._fleet.drain, able))
        for name, answer in zip(able, answers, strict=True):
            self._note(_seen(name, answer))

    async def wait(self) -> None:
        """Return when all that were ordered to drain are gone. Raises EngineUnavailable."""
        while left := [each.worker for each in self.states.values() if _is_left(each)]:
            await asyncio.sleep(self._poll_s)
            await asyncio.gather(*map(self._look_up, left))

    async def _look_up(self, name: str) -> None:
        answer = await self._fleet.look_up(name)
        absences = 0 if answer else self._absences.get(name, 0) + 1
        self._absences[name] = absences
        if answer and answer.draining is False:  # another process has its name, or the order was
            answer = await self._fleet.drain(name)  # lost
        if answer or absences >= ABSENCES:
            self._note(_seen(name, answer))

    def _note(self, drained: Drained) -> None:
        if self.states.get(drained.worker) != drained:
            self.states[drained.worker] = drained
            self._on_change(drained)


def _seen(name: str, answer: WorkerReport | None) -> Drained:
    if answer is None:
        return Drained(worker=name, state=DrainState.GONE)
    state = DrainState.SILENT if answer.draining is None else DrainState.DRAINING
    return Drained(worker=name, state=state, running=answer.running)


def _is_left(drained: Drained) -> bool:
    return drained.state in {DrainState.DRAINING, DrainState.SILENT}
