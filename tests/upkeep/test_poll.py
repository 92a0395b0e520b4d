"""Polls of the branches of prewarm rules, one worker at a time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import SourceUnavailable
from archiver.prewarm.rules import PrewarmRule
from archiver.tasks import Urgency
from archiver.testing import MemorySchedule
from archiver.upkeep.periodic import Periodic
from archiver.upkeep.poll import Poller, PollReport
from tests.memory_world import ASH, FILES, World

RULE = PrewarmRule(
    name="ash",
    source="hgmo",
    repos=(ASH,),
    branches=("default", "V_1"),
    subdirs=("", "testing"),
    poll=timedelta(minutes=1),
)
WORK = "poll_ash"


class Bench:
    def __init__(self) -> None:
        self.world = World()
        self.schedule = MemorySchedule()

    def poller(self, rule: PrewarmRule = RULE) -> Poller:
        return Poller(rule=rule, prewarm=self.world.archiver.prewarm, schedule=self.schedule)

    def poll(self, rule: PrewarmRule = RULE) -> PollReport:
        return asyncio.run(self.poller(rule).poll())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_the_branches_name_is_built_without_urgency(bench: Bench) -> None:
    assert bench.poll() == PollReport(tasks=4)  # both names are of the same changeset
    assert {*bench.world.engine.urgencies.values()} == {Urgency.LATER}
    assert {*bench.world.engine.clients.values()} == {"poll:ash"}
    asyncio.run(bench.world.work())
    assert bench.poll() == PollReport(stored=4)


def test_a_moved_branch_gets_new_archives_and_the_old_ones_stay(bench: Bench) -> None:
    bench.poll()
    asyncio.run(bench.world.work())
    bench.world.archiver = bench.world.new_process()
    bench.world.index._nodes.clear()  # noqa: SLF001 - as after a minute
    bench.world.source.commit(ASH, {**FILES, "new": b"new"}, "default")
    assert bench.poll() == PollReport(stored=2, tasks=2)


def test_a_branch_that_does_not_exist_is_asked_for_once_a_poll(bench: Bench) -> None:
    rule = PrewarmRule(
        name="ash",
        source="hgmo",
        repos=(ASH,),
        branches=("nowhere", "default"),
        subdirs=("", "testing"),
        poll=timedelta(minutes=1),
    )
    with capture_logs() as lines:
        report = bench.poll(rule)
    assert (report, report.complete) == (PollReport(tasks=2, refused=1), False)
    (line,) = (line for line in lines if line["event"] == "rule.refused")
    assert (line["code"], line["rev"]) == ("unknown_rev", "nowhere")


def test_a_host_that_does_not_answer_ends_no_poller(bench: Bench) -> None:
    bench.world.source.outage = SourceUnavailable("no answer")
    assert bench.poll() == PollReport(refused=2)
    bench.world.source.outage = None
    assert bench.poll() == PollReport(tasks=4)


def test_polls_are_never_closer_than_the_rule_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.upkeep.periodic.random.uniform", lambda low, _high: low)
    periodic = bench.poller()._periodic  # noqa: SLF001 - its pauses are random
    assert isinstance(periodic, Periodic)

    async def turns() -> None:
        assert await periodic.run_if_due(bench.poller().poll)
        assert await periodic.run_if_due(bench.poller().poll) is None

    asyncio.run(turns())
    assert bench.schedule.due_at[WORK] - datetime.now(UTC) > timedelta(seconds=59)
