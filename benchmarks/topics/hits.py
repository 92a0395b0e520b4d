"""How many hits per second does a web process serve? Compared with the bare server."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from benchmarks.inputs import NODE
from benchmarks.lab import Lab, buckets, new_repo
from benchmarks.load import Answers, Targets, ask
from benchmarks.pinning import EVERY, ONE_PER_CORE, ONE_PROCESS, OTHERS, SERVER, on
from benchmarks.programs import need
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.redirectors import constant, nginx, original
from benchmarks.seeding import seed, urls
from tests.system.client import Answer, fetch, succeed
from tests.system.stack import Stack

CONSTANT = "the same server (granian), one constant 302"
NGINX = "nginx, one constant 302"
ORIGINAL = "the original's method: Flask, two `HEAD`s and presigning with the AWS SDK"
ARCHIVER = "**Archiver**, one archive"
EVERY_CORE = "**Archiver**, one archive, a process per core, nothing pinned"
LONG_TAIL = "**Archiver**, {:,} archives, each requested once"

SECONDS, QUICK_SECONDS = 8, 1
WARM_UP_SECONDS = 1
ARCHIVES, QUICK_ARCHIVES = 100_000, 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Contestants: Archiver, which starts a web process for each run, and running servers."""

    lab: Lab
    stack: Stack
    answers: dict[str, list[Answers]] = field(default_factory=lambda: defaultdict(list))

    @property
    def seconds(self) -> int:
        return QUICK_SECONDS if self.lab.inputs.quick else SECONDS

    @property
    def archives(self) -> int:
        return QUICK_ARCHIVES if self.lab.inputs.quick else ARCHIVES

    def contestants(self, url: str, rivals: Mapping[str, str]) -> dict[str, Contestant]:
        """Return all contestants. *url* is a hit's; *rivals* serve the same path at their URLs."""
        path = urlsplit(url).path
        constants: dict[str, Contestant] = {
            what: partial(self._ask, what, self._targets([rival + path]))
            for what, rival in rivals.items()
        }
        long_tail = LONG_TAIL.format(self.archives)
        tail = self._targets(urls(self.stack, range(self.archives)))
        return {
            **constants,
            ARCHIVER: partial(self._hits, ARCHIVER, self._targets([url])),
            EVERY_CORE: partial(self._hits_of_all, EVERY_CORE, self._targets([url])),
            long_tail: partial(self._long_tail, long_tail, tail),
        }

    def _targets(self, of: Sequence[str]) -> Targets:
        return Targets.write(self.lab.folder, of)

    def _hits(self, what: str, targets: Targets) -> float:
        with _web(self.stack):
            return self._warm(what, targets)

    def _hits_of_all(self, what: str, targets: Targets) -> float:
        with on(EVERY), self.stack.web(ONE_PER_CORE):
            return self._warm(what, targets)

    def _warm(self, what: str, targets: Targets) -> float:
        ask(targets, seconds=WARM_UP_SECONDS)
        return self._ask(what, targets)

    def _long_tail(self, what: str, targets: Targets) -> float:
        with _web(self.stack):
            return self._ask(what, targets, once=True)

    def _ask(self, what: str, targets: Targets, *, once: bool = False) -> float:
        self.answers[what].append(ask(targets, seconds=self.seconds, once=once))
        return self.answers[what][-1].per_s


@contextmanager
def _web(stack: Stack) -> Iterator[None]:
    """Run one new web process."""
    with ExitStack() as started:
        with on(SERVER):
            started.enter_context(stack.web(ONE_PROCESS))
        yield


def measure(lab: Lab) -> list[Table]:
    need("wrk", "nginx")
    with on(OTHERS), ExitStack() as stack:
        host = stack.enter_context(lab.host(lab.inputs.get("10MB")))
        servers = stack.enter_context(lab.servers(host))
        course = Course(lab=lab, stack=servers)
        seed(servers, course.archives)
        url, answer = _build(lab, servers)
        rivals = {
            what: stack.enter_context(rival)
            for what, rival in _rivals(lab, servers, answer).items()
        }
        race(course.contestants(url, rivals), rounds=lab.rounds, unit="/s")
    return _tables(course.answers)


def _build(lab: Lab, stack: Stack) -> tuple[str, Answer]:
    """Build one archive, and return its URL and the response to it."""
    url = stack.url(new_repo(lab.inputs.get("10MB")), NODE)
    with stack.web(), stack.worker():
        succeed(url)
        return url, fetch(url)


def _rivals(lab: Lab, stack: Stack, answer: Answer) -> dict[str, AbstractContextManager[str]]:
    """Return servers that send *answer*, and the original with the same object."""
    location = answer.location
    (bucket,) = (b for b in buckets(stack) if location.startswith(b.endpoint))
    key = urlsplit(location).path.removeprefix(f"/{bucket.bucket}/")
    return {
        CONSTANT: constant(answer, lab.folder),
        NGINX: nginx(answer, lab.folder),
        ORIGINAL: original(bucket, key, lab.folder),
    }


def _tables(answers: Mapping[str, Sequence[Answers]]) -> list[Table]:
    """Return hits per second, compared with the bare server and the original, and latencies."""
    rates = {what: [each.per_s for each in of_it] for what, of_it in answers.items()}
    (long_tail,) = answers.keys() - {CONSTANT, NGINX, ORIGINAL, ARCHIVER, EVERY_CORE}
    goals = {ARCHIVER: "≥ 0.75", long_tail: "≥ 0.3"}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in rates.items()]
    beside = [
        Row(what=what, samples=rates[what], goal="≥ 100" if what == ARCHIVER else "")
        for what in (ORIGINAL, ARCHIVER, long_tail)
    ]
    return [
        Table(title="responses per second", unit="/s", rows=rows, base=CONSTANT, digits=0),
        Table(title="responses per second", unit="/s", rows=beside, base=ORIGINAL, digits=0),
        Table(title="time to the response", unit="ms", rows=_times(answers), digits=2),
    ]


def _times(answers: Mapping[str, Sequence[Answers]]) -> list[Row]:
    rows = []
    for what, of_it in answers.items():
        rows.append(Row(what=f"{what}: p50", samples=[each.p50_ms for each in of_it]))
        rows.append(Row(what=f"{what}: p99", samples=[each.p99_ms for each in of_it]))
    return rows
