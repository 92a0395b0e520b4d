"""How long does a hit take while 50 builds run? At 1,500 hits per second, on the same cores."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.inputs import NODE, Input
from benchmarks.lab import TIMEOUT_S, Lab, new_repo
from benchmarks.load import Answers, Targets, ask
from benchmarks.pinning import ONE_PER_CORE
from benchmarks.programs import need
from benchmarks.race import Row, Table, race
from tests.system.client import ended, fetch, poll, succeed
from tests.system.stack import Stack

BUILDS, QUICK_BUILDS = 50, 5

ARCHIVE, QUICK_ARCHIVE = "10MB", "8GB"
RATE = 6e5
"""Bytes per second of each build: 50 of them reach 30 MB/s, the rate of a real host."""

SECONDS, QUICK_SECONDS = 8, 2
PAUSE_MS = 20
"""With 32 connections about 1,500 hits per second, four times hg.mozilla.org's busiest hour."""

SETTINGS = {
    **ONE_PER_CORE,
    "ARCHIVER_SOURCES__HGMO__CONCURRENCY": "100",
    "ARCHIVER_WORKER__CONCURRENCY": str(BUILDS),
}

QUIET, BUSY = "nothing else", "{} builds"
GOAL = "< 25"


class BuildsEndedEarly(Exception):
    """Builds ended before the measurement of the hits did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyInstallation:
    """An installation that serves one archive while it builds others."""

    stack: Stack
    archive: Input
    targets: Targets
    builds: int
    seconds: int
    answers: dict[str, list[Answers]] = field(default_factory=lambda: defaultdict(list))

    def quiet(self) -> float:
        return self._ask(QUIET)

    def busy(self) -> float:
        with self._building() as statuses:
            p99_ms = self._ask(BUSY.format(self.builds))
            if any(_state(status) != "STARTED" for status in statuses):
                raise BuildsEndedEarly(Counter(map(_state, statuses)))
        return p99_ms

    def _ask(self, what: str) -> float:
        answers = ask(self.targets, seconds=self.seconds, pause_ms=PAUSE_MS)
        self.answers[what].append(answers)
        return answers.p99_ms

    @contextmanager
    def _building(self) -> Iterator[list[str]]:
        """Run builds, and yield their status URLs. All have succeeded after the block."""
        urls = [self.stack.url(new_repo(self.archive), NODE) for _ in range(self.builds)]
        statuses = [fetch(url).location for url in urls]
        for status in statuses:
            poll(status, lambda result: result["state"] == "STARTED")
        yield statuses
        for status in statuses:
            result = poll(status, ended, timeout_s=TIMEOUT_S)[-1]
            if result["state"] != "SUCCESS":
                raise BuildsEndedEarly(result)


def _state(status: str) -> str:
    return str(fetch(status).json["result"]["state"])


def measure(lab: Lab) -> list[Table]:
    need("wrk")
    archive = lab.inputs.get(QUICK_ARCHIVE if lab.inputs.quick else ARCHIVE)
    with lab.host(archive, rate=RATE) as host, lab.installation(host, SETTINGS) as archiver:
        url = archiver.url(new_repo(archive))
        succeed(url, timeout_s=TIMEOUT_S)
        installation = BusyInstallation(
            stack=archiver.stack,
            archive=archive,
            targets=Targets.write(lab.folder, [url]),
            builds=QUICK_BUILDS if lab.inputs.quick else BUILDS,
            seconds=QUICK_SECONDS if lab.inputs.quick else SECONDS,
        )
        contestants = {
            QUIET: installation.quiet,
            BUSY.format(installation.builds): installation.busy,
        }
        race(contestants, rounds=lab.rounds, unit="ms")
    return [_table(installation.answers)]


def _table(answers: Mapping[str, Sequence[Answers]]) -> Table:
    rows = []
    for what, of_it in answers.items():
        rows.append(Row(what=f"{what}: p50", samples=[each.p50_ms for each in of_it]))
        p99s = [each.p99_ms for each in of_it]
        rows.append(Row(what=f"{what}: p99", samples=p99s, goal="" if what == QUIET else GOAL))
    return Table(title="time to a hit, beside", unit="ms", rows=rows)
