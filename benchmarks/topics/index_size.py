"""Does a hit depend on the number of archives? With 1,000, 100,000 and 1,000,000 archives."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.lab import Lab
from benchmarks.load import Targets, ask
from benchmarks.pinning import ONE_PROCESS, OTHERS, SERVER, on
from benchmarks.process import resident_mb
from benchmarks.programs import need
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.seeding import seed, urls
from tests.system.stack import Stack

SIZES, QUICK_SIZES = (1_000, 100_000, 1_000_000), (100, 1_000, 2_000)
ASKED_FOR = 1_000
"""Number of different archives requested, spread evenly over all archives."""

SECONDS, QUICK_SECONDS = 8, 1
WARM_UP_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An installation with a seeded index. ``web_mb`` has one entry per round."""

    stack: Stack
    targets: Targets
    seconds: int
    web_mb: list[float] = field(default_factory=list)

    def hits(self) -> float:
        """Return hits per second of a new web process."""
        with ExitStack() as started:
            with on(SERVER):
                web = started.enter_context(self.stack.web(ONE_PROCESS))
            ask(self.targets, seconds=WARM_UP_SECONDS)
            answers = ask(self.targets, seconds=self.seconds)
            self.web_mb.append(resident_mb(web))
        return answers.per_s


def measure(lab: Lab) -> list[Table]:
    need("wrk")
    with on(OTHERS), ExitStack() as stack:
        host = stack.enter_context(lab.host())
        indexes = {}
        for count in QUICK_SIZES if lab.inputs.quick else SIZES:
            servers = stack.enter_context(lab.servers(host))
            seed(servers, count)
            indexes[f"{count:,} archives"] = _index(lab, servers, count)
        contestants: dict[str, Contestant] = {what: each.hits for what, each in indexes.items()}
        rates = race(contestants, rounds=lab.rounds, unit="/s")
    return _tables(rates, {what: index.web_mb for what, index in indexes.items()})


def _index(lab: Lab, stack: Stack, count: int) -> Index:
    spread = range(0, count, max(1, count // ASKED_FOR))
    return Index(
        stack=stack,
        targets=Targets.write(lab.folder, urls(stack, spread)),
        seconds=QUICK_SECONDS if lab.inputs.quick else SECONDS,
    )


def _tables(
    rates: Mapping[str, Sequence[float]], web_mb: Mapping[str, Sequence[float]]
) -> list[Table]:
    return [
        Table(
            title=title,
            unit=unit,
            rows=[Row(what=what, samples=s) for what, s in samples.items()],
            base=next(iter(samples)),
            digits=0,
        )
        for title, unit, samples in (
            ("hits per second", "/s", rates),
            ("memory of the web process", "MB", web_mb),
        )
    ]
