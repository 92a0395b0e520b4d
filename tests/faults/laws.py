"""The laws of docs/laws.md, as they can be checked from outside after a round."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.faults.buckets import Buckets
from tests.faults.counts import Counts
from tests.faults.errands import Round
from tests.faults.fleet import Fleet
from tests.faults.fleet_settings import CONCURRENCY, LEASE_S
from tests.faults.host import Fetch
from tests.faults.kinds import Fault, Kind
from tests.faults.visits import AWAY, Visit, download
from tests.parts.fault_cases import node_of
from tests.parts.s3 import ACCESS_KEY, SECRET_KEY

SLACK_S = 2.0
"""Beyond a lease, on a busy machine."""

TURNS = 10
"""Archives of another client in its own lane that may come before one of a light client: what the
lane runs, the room that it has, and one more for each worker that moves tasks there."""

LANE = re.compile(r'"key": "v1/hgmo/faults/([\w-]+)/.*"lane": "(\w+)"')

SECRETS = re.compile(
    rf"X-Amz-|AWSAccessKeyId|{SECRET_KEY}|{ACCESS_KEY}|Traceback|Bearer |Errno|attempt\.broken"
)


@dataclass(slots=True, kw_only=True)
class Aftermath:
    """A round after all has settled: what happened in it, and what there is now."""

    fleet: Fleet
    now: Round
    faults: Sequence[Fault]
    kinds: Mapping[str, Kind]
    visits: Sequence[Visit]
    buckets: Buckets
    counts: Counts
    began: float
    read: dict[Path, int]
    everything: bool = False

    @property
    def excuses(self) -> list[str]:
        """The parts whose faults may end a fetch or spoil its archive."""
        return [self.kinds[f.kind].part for f in self.faults if self.kinds[f.kind].excuses]

    def fetches(self) -> Mapping[str, list[Fetch]]:
        """Return the fetches of this round by archive."""
        found: defaultdict[str, list[Fetch]] = defaultdict(list)
        for fetch in tuple(self.fleet.host.fetches):
            if fetch.began >= self.began:
                found[fetch.name].append(fetch)
        return found

    def lanes(self) -> Mapping[str, str]:
        """Return the lane of each archive that has ended, by the logs of the workers."""
        return {
            name: lane
            for worker in self.fleet.workers
            for name, lane in LANE.findall(worker.log.read_text(errors="replace"))
        }


Breach = tuple[int, str]


def _links(after: Aftermath) -> Iterator[Breach]:
    """Laws 1 and 2: each redirect leads to the bytes that it names, and they are the host's."""
    for visit in after.visits:
        for link in visit.links:
            after.counts.links += 1
            try:
                wrong = download(link)
            except AWAY as exc:
                wrong = type(exc).__name__
            if wrong:
                after.counts.dead_links += 1
                yield 1, f"a link to {visit.name} leads to {wrong}"
            if visit.expected is not None and link.sha256 != visit.expected:
                yield 1, f"{visit.name} was handed out with bytes that the host did not vouch for"


def _buckets(after: Aftermath) -> Iterator[Breach]:
    for key in after.buckets.lacking():
        yield 2, f"{key} is still missing in a region"
    yield from after.buckets.check(everything=after.everything)
    counts, buckets = after.counts, after.buckets
    counts.not_whole, counts.visible = buckets.not_whole, len(buckets.sha256s)
    counts.orphans, counts.unfinished = buckets.orphans(), buckets.unfinished()


def _fetches(after: Aftermath) -> Iterator[Breach]:
    """Law 3: one fetch for each archive, unless a fault of the round explains another."""
    for name, fetches in after.fetches().items():
        if fetches[0].is_faulty:
            continue
        after.counts.fetches[len(fetches)] += 1
        for earlier, later in pairwise(fetches):
            if later.overlap_s > LEASE_S + SLACK_S:
                yield 3, f"two fetches of {name} went on for {later.overlap_s:.1f} s"
            if after.fleet.spells.of(earlier.pid, earlier.began, later.began):
                after.counts.causes["its process was killed, stopped or frozen"] += 1
            elif after.excuses:
                after.counts.causes[f"faults of {', '.join(sorted(set(after.excuses)))}"] += 1
            else:
                yield 3, f"{name} was fetched again without a cause"


def _git_fetches(after: Aftermath) -> Iterator[Breach]:
    wanted = [visit.name for visit in after.visits if visit.label == "git"]
    for node in wanted:
        fetches = sum(node.encode() in request.body for request in after.fleet.git.fetches)
        after.counts.fetches[fetches] += 1
        if fetches > 1 and not after.excuses:
            yield 3, f"the commit {node} was fetched {fetches} times without a cause"


def _tasks(after: Aftermath) -> Iterator[Breach]:
    """Law 4: each accepted task has ended with a reason, and each client has got its answer."""
    for visit in after.visits:
        if visit.problem == "internal_error":
            yield 4, f"the task of {visit.name} failed without a reason"
        after.counts.refusals += visit.refusals
        if visit.was_accepted:
            after.counts.accepted += 1
            outcome = visit.outcome
            after.counts.succeeded += outcome == "SUCCESS"
            after.counts.failed += outcome == "FAILURE"
        if visit.problem and visit.was_accepted:
            after.counts.failures[visit.problem] += 1
        if visit.is_lost:
            after.counts.lost += 1
            states = [result.get("state") for result in visit.statuses.values()]
            yield 4, f"the task of {visit.name} was accepted and has not ended: {states}"
        elif not visit.ended:
            after.counts.unanswered += 1
            yield 4, f"a client of {visit.name} got no answer: {dict(visit.refusals)}"


def _absences(after: Aftermath) -> Iterator[Breach]:
    """A HEAD creates nothing."""
    made = {key for key in after.buckets.sha256s if "head-" in key}
    for name in after.now.absent:
        if any(node_of(name) in key for key in made):
            yield 3, f"a HEAD had {name} built"


def _leftovers(after: Aftermath) -> Iterator[Breach]:
    """Law 6: no file of a build stays on the workers' disk."""
    left = [path for path in (after.fleet.disk / "work").rglob("*") if path.is_file()]
    after.counts.left_files += len(left)
    for path in left:
        yield 6, f"{path.name} was left on the disk of the workers"


def _canary(after: Aftermath) -> Iterator[Breach]:
    for target in after.fleet.canary.targets:
        yield 7, f"another host was asked for {target[:80]}"
    after.fleet.canary.requests.clear()


def _logs(after: Aftermath) -> Iterator[Breach]:
    """Law 8: no link, secret or text of a library in what the processes have logged since."""
    for path in after.fleet.logs():
        start = after.read.get(path, 0)
        text = path.read_bytes()[start:].decode(errors="replace")
        after.read[path] = start + len(text.encode())
        found = Counter(match[0] for match in SECRETS.finditer(text))
        if after.fleet.token in text:
            found["the token"] += 1
        for words, number in found.items():
            yield 8, f"{path.name} has {words!r} {number} times"


def _load(after: Aftermath) -> Iterator[Breach]:
    """Law 9: at most so many fetches at once, beside those of processes that do not run.

    An engine that is away for a lease cannot say to a worker that another one has its task.
    """
    spells = after.fleet.spells
    allowed = CONCURRENCY * (2 if "engine" in after.excuses else 1)
    for fetches in after.fetches().values():
        for fetch in fetches:
            running = [
                pid
                for pid in fetch.others
                if not spells.are_on(pid, fetch.began, margin_s=LEASE_S + SLACK_S)
            ]
            at_once = 1 + len(running)
            after.counts.most_at_once = max(after.counts.most_at_once, at_once)
            if at_once > allowed:
                yield 9, f"{at_once} fetches went on when that of {fetch.name} began"


def _privacy(after: Aftermath) -> Iterator[Breach]:
    """Law 10: a client without the token learns nothing of the private source."""
    for visit in after.now.forbidden:
        if visit.links or visit.was_accepted or visit.final_status not in {401, 404}:
            yield 10, f"a stranger got {visit.final_status} {visit.problem} for {visit.name}"


def _fairness(after: Aftermath) -> Iterator[Breach]:
    """Law 11: a light client waits for few archives of a heavy one in the same lane.

    While a fault holds what one lane runs, another lane may start any number of archives. Not after
    the engine has lost its data: until a task is restored, a lease later, it is in no queue, and
    the tasks that a flood creates in the meantime come first.
    """
    if any(fault.kind == "engine-wiped" for fault in after.faults):
        return
    fetches, lanes = after.fetches(), after.lanes() if after.now.floods else {}
    for visit, names in after.now.floods:
        own = fetches.get(visit.name)
        if not own or not visit.accepted:
            continue
        before = [
            name
            for name in names
            if name in fetches
            and lanes.get(name) == lanes.get(visit.name)
            and visit.accepted < fetches[name][0].began < own[0].began
        ]
        if len(before) > TURNS:
            yield 11, f"{len(before)} archives of another client came before {visit.name}"


CHECKS: Sequence[Callable[[Aftermath], Iterator[Breach]]] = (
    _links,
    _buckets,
    _fetches,
    _git_fetches,
    _tasks,
    _absences,
    _leftovers,
    _canary,
    _logs,
    _load,
    _privacy,
    _fairness,
)


def check(after: Aftermath) -> None:
    """Count the round, and record every breach of a law."""
    numbers = tuple(fault.number for fault in after.faults)
    for one in CHECKS:
        for law, text in one(after):
            after.counts.find(law, text, numbers)
