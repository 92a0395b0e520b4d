"""How soon do waiting clients get their archive? And the memory of 5,000 that still wait."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.inputs import NODE, Input
from benchmarks.lab import Lab, buckets, new_repo
from benchmarks.pinning import ONE_PROCESS
from benchmarks.process import resident_mb
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.throng import Reply, throng
from benchmarks.topics.herd import COUNT, Herd, UnexpectedOutcome, herds, require, status_url
from tests.system.stack import Stack

WAIT = "wait=80"
OVER_S = 1.0
"""Seconds over which the clients start; the archive exists some seconds later."""

RATE = 2e6
"""The host needs 4 s for the archive: after every client has started, before any redirect."""

FOUND_GOAL, MEMORY_GOAL = "< 200", "< 600"

ROOM = {"ARCHIVER_SERVER__WAITERS": str(COUNT), "ARCHIVER_SERVER__HOLD_S": "10"}
"""Settings for all clients in one process, with the hold of the first measurement."""

ARCHIVE, QUICK_ARCHIVE = "10MB", "8GB"
SLOW_RATE = 5e5
"""The host needs 18 s: every client has started and was redirected once by then."""

SETTLED_S = 8.0
"""Seconds after which all clients wait."""


def measure(lab: Lab) -> list[Table]:
    return [_found(lab), _memory(lab)]


def _found(lab: Lab) -> Table:
    with herds(lab, rate=RATE, settings=ROOM) as found:
        contestants: dict[str, Contestant] = {
            f"{herd.count:,} clients, {what}": partial(_until_the_last, herd)
            for what, herd in found.items()
        }
        taken = race(contestants, rounds=lab.rounds, unit="ms")
    rows = [Row(what=what, samples=samples, goal=FOUND_GOAL) for what, samples in taken.items()]
    return Table(title="time from the commit to the last 302", unit="ms", rows=rows, digits=0)


def _until_the_last(herd: Herd) -> float:
    """Return the milliseconds between the commit and the last 302 of the waiting clients."""
    repo, replies = herd.come("302", query=WAIT, over_s=OVER_S)
    return 1000 * (max(reply.ended_at for reply in replies) - _committed_at(herd.stack, repo))


def _committed_at(stack: Stack, repo: str) -> float:
    """Return when the manifest appeared in the primary region's folder."""
    primary = buckets(stack)[0]
    (manifest,) = (primary.folder / "manifests" / "v1" / "hgmo" / repo).rglob("*.json")
    return manifest.stat().st_ctime


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowds:
    """Clients that wait for one archive, and clients of its task's event stream."""

    waiters: int
    streams: int

    def __str__(self) -> str:
        return f"{self.waiters:,} waiting requests and {self.streams:,} event streams"

    def held_mb(self, stack: Stack, archive: Input) -> float:
        """Return the memory of a new web process while all of them wait."""
        repo = new_repo(archive)
        archive_url, events_url = stack.url(repo, NODE, WAIT), f"{status_url(stack, repo)}/events"
        with (
            stack.web(ONE_PROCESS) as web,
            throng(archive_url, self.waiters, over_s=OVER_S) as waiters,
            throng(events_url, self.streams, over_s=OVER_S) as streams,
        ):
            time.sleep(SETTLED_S)
            measured_at, held_mb = time.time(), resident_mb(web)
            _check(waiters.replies(), "302", measured_at)
            _check(streams.replies(), "200", measured_at)
        return held_mb


def _check(replies: Sequence[Reply], outcome: str, measured_at: float) -> None:
    """Raise UnexpectedOutcome unless all waited at *measured_at* and then had *outcome*."""
    require(replies, outcome)
    if not all(reply.begun_at < measured_at < reply.ended_at for reply in replies):
        raise UnexpectedOutcome("not every client was waiting when memory was measured")


def _memory(lab: Lab) -> Table:
    archive = lab.inputs.get(QUICK_ARCHIVE if lab.inputs.quick else ARCHIVE)
    idle = Crowds(waiters=0, streams=0)
    many = QUICK_MANY if lab.inputs.quick else MANY
    with (
        lab.host(archive, rate=SLOW_RATE) as host,
        lab.servers(host) as stack,
        stack.worker(),
    ):
        taken = race(
            {
                "no waiting clients": lambda: idle.held_mb(stack, archive),
                str(many): lambda: many.held_mb(stack, archive),
            },
            rounds=lab.rounds,
            unit="MB",
        )
    goals = {str(many): MEMORY_GOAL}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in taken.items()]
    return Table(title="memory of a web process with", unit="MB", rows=rows, digits=0)


MANY, QUICK_MANY = Crowds(waiters=5_000, streams=2_000), Crowds(waiters=100, streams=40)
