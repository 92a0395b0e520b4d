"""Draining workers, as the command follows them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from archiver.model import TaskId
from archiver.ports.queue import WorkerReport
from archiver.testing import MemoryEngine
from archiver.upkeep.drain import ABSENCES, Drained, Drainer, DrainState

TASKS = (TaskId("a:b"),)


def report(
    name: str, *, draining: bool | None = False, running: tuple[TaskId, ...] = ()
) -> WorkerReport:
    return WorkerReport(name=name, regions={}, draining=draining, running=running)


class Workers(MemoryEngine):
    """Answers of workers, one after the other; the last one stays."""

    def __init__(self, **answers: Sequence[WorkerReport | None]) -> None:
        super().__init__()
        self.orders: list[str] = []
        self._answers = {name: list(each) for name, each in answers.items()}

    async def workers(self) -> Sequence[WorkerReport]:
        return [found for each in self._answers.values() if (found := each[0])]

    async def drain(self, name: str) -> WorkerReport | None:
        self.orders.append(name)
        return await self.look_up(name)

    async def look_up(self, name: str) -> WorkerReport | None:
        answers = self._answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def changes(workers: Workers, *names: str) -> list[Drained]:
    """Drain the workers with these names, and return what the command shows."""
    seen: list[Drained] = []

    async def play() -> None:
        drainer = Drainer(fleet=workers, on_change=seen.append, poll=timedelta(0))
        reports = [each for each in await drainer.workers() if each.name in names]
        async with asyncio.timeout(30):
            await drainer.order(reports)
            await drainer.wait()

    asyncio.run(play())
    return seen


def test_a_worker_is_shown_with_its_tasks_until_it_is_gone() -> None:
    busy, idle = report("a", draining=True, running=TASKS), report("a", draining=True)
    workers = Workers(a=[busy, busy, idle, idle, None], b=[report("b")])

    assert changes(workers, "a") == [
        Drained(worker="a", state=DrainState.DRAINING, running=TASKS),
        Drained(worker="a", state=DrainState.DRAINING),
        Drained(worker="a", state=DrainState.GONE),
    ]
    assert workers.orders == ["a"]


def test_a_worker_of_an_earlier_release_gets_no_order() -> None:
    workers = Workers(a=[report("a", draining=None)], b=[report("b", draining=True), None])

    assert [(each.worker, each.state) for each in changes(workers, "a", "b")] == [
        ("a", DrainState.UNSUPPORTED),
        ("b", DrainState.DRAINING),
        ("b", DrainState.GONE),
    ]
    assert workers.orders == ["b"]


def test_a_worker_that_connects_again_is_not_taken_for_gone() -> None:
    there = report("a", draining=True)
    absent = [None] * (ABSENCES - 1)
    states = [each.state for each in changes(Workers(a=[there, *absent, there, None]), "a")]

    assert states == [DrainState.DRAINING, DrainState.GONE]


def test_a_silent_worker_is_waited_for() -> None:
    there, silent = report("a", draining=True), report("a", draining=None)
    states = [each.state for each in changes(Workers(a=[there, there, silent, there, None]), "a")]

    assert states == [
        DrainState.DRAINING,
        DrainState.SILENT,
        DrainState.DRAINING,
        DrainState.GONE,
    ]


def test_an_order_that_was_lost_is_repeated() -> None:
    workers = Workers(a=[report("a"), report("a"), report("a", draining=True), None])
    changes(workers, "a")

    assert workers.orders == ["a", "a"]
