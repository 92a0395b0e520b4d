"""How soon after a push is its archive in two regions? Linux, with a warm mirror."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.git_repository import GitRepository
from benchmarks.git_serving import GitServer, serving
from benchmarks.lab import Installation, Lab, next_run
from benchmarks.programs import need
from benchmarks.race import Row, Table, race
from benchmarks.topics.git import AWAY, HERE, LINUX, QUICK_LINUX, WAIT_S
from tests.parts.webhooks import signed
from tests.system.client import fetch, poll, stored
from tests.system.stack import REGIONS

SECRET = "the-secret-of-the-benchmark"  # noqa: S105 - only of a benchmark

UNANNOUNCED = "the first client's request, without a webhook"
ANNOUNCED = "webhook to SUCCESS in two regions"
ANSWER, HIT = "the answer to the webhook", "the first client's request after that: a hit"
ANSWER_GOAL = "< 100"
TIMEOUT_S = 600.0


def measure(lab: Lab) -> list[Table]:
    need("git")
    linux = GitRepository(lab.inputs, QUICK_LINUX if lab.inputs.quick else LINUX)
    with ExitStack() as stack:
        folder = lab.folder / "host"
        folder.mkdir()
        server = stack.enter_context(serving(linux, folder))
        regions = stack.enter_context(lab.faraway())
        hosts = {
            where: stack.enter_context(_pusher(lab, server, linux, settings))
            for where, settings in {AWAY: regions, HERE: {}}.items()
        }
        contestants: dict[str, Callable[[], float]] = {}
        for where, pusher in hosts.items():
            pusher.request()  # the mirror is warm from now on
            contestants[f"{UNANNOUNCED}, {where}"] = pusher.request
            contestants[f"{ANNOUNCED}, {where}"] = pusher.push
        taken = race(contestants, rounds=lab.rounds, tidy=hosts[HERE].archiver.empty)
    base = f"{UNANNOUNCED}, {AWAY}"
    rows = [Row(what=what, samples=samples) for what, samples in taken.items()]
    answers = [ms for pusher in hosts.values() for ms in pusher.milliseconds[ANSWER]]
    hits = [ms for pusher in hosts.values() for ms in pusher.milliseconds[HIT]]
    return [
        Table(unit="s", rows=rows, base=base, digits=2),
        Table(
            unit="ms",
            rows=[
                Row(what=f"{ANSWER} ({ANSWER_GOAL})", samples=answers),
                Row(what=HIT, samples=hits),
            ],
        ),
    ]


@dataclass(kw_only=True)
class _Pusher:
    """Announces one commit after the other; ``milliseconds`` has what else was measured."""

    archiver: Installation
    linux: GitRepository
    repo: str
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _used: int = 0

    def request(self) -> float:
        """Return the seconds from a request for the next commit to the redirect to a region."""
        return self.archiver.redirect(self.repo, self._next(), f"wait={WAIT_S}")

    def push(self) -> float:
        """Return the seconds from the delivery for the next commit to the end of its task."""
        node, public = self._next(), self.archiver.stack.public
        body = json.dumps({"repo": self.repo, "branch": "main", "node": node}).encode()
        headers = signed(body, secret=SECRET)
        started = time.monotonic()
        answer = fetch(f"{public}/hooks/bench", method="POST", headers=headers, body=body)
        self.milliseconds[ANSWER].append(1000 * (time.monotonic() - started))
        (archive,) = answer.json["archives"]
        url = f"{public}/archiver/status/{archive['task']}"
        ended = poll(url, stored, timeout_s=TIMEOUT_S)[-1]
        taken = time.monotonic() - started
        if set(ended["s3_urls"]) != set(REGIONS):
            raise RuntimeError(f"{node} is not in both regions: {ended}")
        hit = 1000 * self.archiver.redirect(self.repo, node, "wait=0")
        self.milliseconds[HIT].append(hit)
        return taken

    def _next(self) -> str:
        self._used += 1
        return self.linux.nodes[self._used]


@contextmanager
def _pusher(
    lab: Lab, server: GitServer, linux: GitRepository, regions: Mapping[str, str]
) -> Iterator[_Pusher]:
    settings = {
        **regions,
        "ARCHIVER_SOURCES__HGMO__KIND": "git",
        "ARCHIVER_WORKER__MIRROR_DIR": str(lab.folder / f"mirrors-{next_run()}"),
        "ARCHIVER_PREWARM__BENCH__SOURCE": "hgmo",
        "ARCHIVER_PREWARM__BENCH__REPOS": '["*"]',
        "ARCHIVER_PREWARM__BENCH__BRANCHES": '["main"]',
        "ARCHIVER_HOOKS__BENCH__KIND": "standard",
        "ARCHIVER_HOOKS__BENCH__SOURCE": "hgmo",
        "ARCHIVER_HOOKS__BENCH__SECRET": SECRET,
    }
    with lab.installation(server, settings) as archiver:
        yield _Pusher(archiver=archiver, linux=linux, repo=server.new_repo())
