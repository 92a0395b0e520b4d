"""How long does a response take if 10,000 clients want one archive? It does not exist yet."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.inputs import NODE, Input
from benchmarks.lab import TIMEOUT_S, Host, Lab, new_repo
from benchmarks.pinning import EVERY, ONE_PER_CORE, ONE_PROCESS, OTHERS, SERVER, on
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.redirectors import constant
from benchmarks.throng import Reply, crowd, p99
from tests.system.client import ended, fetch, poll
from tests.system.stack import Stack

COUNT, QUICK_COUNT = 10_000, 200

ARCHIVE, QUICK_ARCHIVE = "10MB", "8GB"
RATE = 8e5
"""The host needs 10 s for either archive: every client has its response before the commit."""

OVER_S = {"all at once": 0.0, "within 2 s": 2.0}
GOAL = "< 300"

BARE = "the same server (granian), one constant 202"
PINNED, SPREAD = "one process, on one core", "a process per core"


class UnexpectedOutcome(Exception):
    """A client had another outcome than expected, or the host was asked more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Herd:
    """Crowds of clients of one installation, each for another archive, on these ``cores``."""

    host: Host
    stack: Stack
    archive: Input
    count: int
    cores: set[int]

    def come(self, outcome: str, *, query: str = "", over_s: float) -> tuple[str, list[Reply]]:
        """Run a crowd whose clients all have *outcome*; return the repo and the replies.

        Raises:
            UnexpectedOutcome: A client had another outcome, or the host was asked more than once.
        """
        repo = new_repo(self.archive)
        with on(self.cores):
            replies = crowd(self.stack.url(repo, NODE, query), self.count, over_s=over_s)
        poll(status_url(self.stack, repo), ended, timeout_s=TIMEOUT_S)
        require(replies, outcome)
        if (fetched := self.host.fetched(repo)) != 1:
            raise UnexpectedOutcome(f"the host was asked {fetched} times")
        return repo, replies


def require(replies: Sequence[Reply], outcome: str) -> None:
    """Raise UnexpectedOutcome unless every client had *outcome*."""
    outcomes = Counter(reply.outcome for reply in replies)
    if outcomes.keys() - {outcome}:
        raise UnexpectedOutcome(f"expected only {outcome}: {outcomes}")


def status_url(stack: Stack, repo: str) -> str:
    task = f"hgmo:{repo.replace('/', ':')}:-:{NODE}:-:tar.gz"
    return f"{stack.public}/archiver/status/{task}"


@contextmanager
def herds(
    lab: Lab, *, rate: float, settings: Mapping[str, str] | None = None
) -> Iterator[dict[str, Herd]]:
    """Yield an installation with one web process on its own core, and one with the defaults.

    *rate* is the host's, in bytes per second.
    """
    archive = lab.inputs.get(QUICK_ARCHIVE if lab.inputs.quick else ARCHIVE)
    count = QUICK_COUNT if lab.inputs.quick else COUNT
    with ExitStack() as stack:
        found = {}
        for what, web, processes in ((PINNED, SERVER, ONE_PROCESS), (SPREAD, EVERY, ONE_PER_CORE)):
            others = OTHERS if what == PINNED else EVERY
            with on(others):
                host = stack.enter_context(lab.host(archive, rate=rate))
                servers = stack.enter_context(lab.servers(host, settings))
                stack.enter_context(servers.worker())
            with on(web):
                stack.enter_context(servers.web(processes))
            found[what] = Herd(host=host, stack=servers, archive=archive, count=count, cores=others)
        yield found


def _accepted(herd: Herd, over_s: float) -> float:
    """Return the p99, in milliseconds, of the time until a 202."""
    _, replies = herd.come("202", over_s=over_s)
    return p99([reply.taken_ms for reply in replies])


def measure(lab: Lab) -> list[Table]:
    with herds(lab, rate=RATE) as found, _bare(lab, found[PINNED]) as bare:
        contestants: dict[str, Contestant] = {}
        for when, over_s in OVER_S.items():
            contestants[f"{when}: {BARE}"] = partial(_answered, bare, found[PINNED], over_s)
            for what, herd in found.items():
                contestants[f"{when}: **Archiver**, {what}"] = partial(_accepted, herd, over_s)
        taken = race(contestants, rounds=lab.rounds, unit="ms")
    rows = [
        Row(what=what, samples=samples, goal="" if what.endswith(BARE) else GOAL)
        for what, samples in taken.items()
    ]
    return [Table(title="time to the 202: p99", unit="ms", rows=rows, digits=0)]


@contextmanager
def _bare(lab: Lab, herd: Herd) -> Iterator[str]:
    """Yield the URL of a server that sends Archiver's response to every request."""
    answer = fetch(herd.stack.url(new_repo(herd.archive), NODE))
    with on(herd.cores), constant(answer, lab.folder) as url:
        yield url


def _answered(url: str, herd: Herd, over_s: float) -> float:
    """Return the p99 of such a crowd at *url*."""
    with on(herd.cores):
        replies = crowd(f"{url}/", herd.count, over_s=over_s)
    require(replies, "202")
    return p99([reply.taken_ms for reply in replies])
