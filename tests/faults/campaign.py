"""A campaign: rounds of faults under load, each of which settles before its laws are checked."""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import errands
from tests.faults.buckets import Buckets
from tests.faults.counts import Counts
from tests.faults.errands import Round
from tests.faults.fleet import Fleet
from tests.faults.host_kinds import case_of
from tests.faults.kinds import NOTHING, Fault, Kind, Scene
from tests.faults.laws import Aftermath, check
from tests.faults.moments import RANDOM
from tests.faults.programs import resident_mb
from tests.faults.visits import AWAY, Visit, Visitor
from tests.git_repositories import SIMPLE, GitRepository
from tests.parts.git_host import REPO
from tests.parts.process import wait_until
from tests.system.client import fetch

MOMENT_S = 4.0
"""How long a fault waits for its moment. Then it begins wherever the builds are."""

SETTLE_S = 120.0
"""How long clients and repairs may take after the last fault was undone."""

UNASKED_S = 12.0
"""How long repairs that are listed may take, before a hit lists those that are not."""

LOAD_S = 1.5
"""Over which the clients of a round arrive."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Campaign:
    """``say`` writes a line to the log of the run."""

    fleet: Fleet
    seed: int
    kinds: Mapping[str, Kind]
    say: Say
    counts: Counts = field(default_factory=Counts)
    _read: dict[Path, int] = field(default_factory=dict)
    _interrupted: threading.Event = field(default_factory=threading.Event)

    def run(self, rounds: Iterator[Sequence[Fault]], *, until: float) -> Counts:
        """Run all rounds, or those that begin before *until*."""
        commits = _commits(self.fleet.git.create(REPO))
        regions = list(self.fleet.regions.values())
        buckets = Buckets(regions, random.Random(self.seed))  # noqa: S311
        self.counts.memory_mb.append(self._memory())
        number = 0
        for number, faults in enumerate(rounds, start=1):
            if time.monotonic() > until:
                self.say("out of time")
                break
            self._round(number, faults, commits, buckets)
        self._round(number + 1, (), commits, buckets, everything=True)
        self.counts.memory_mb.append(self._memory())
        return self.counts

    def _memory(self) -> float:
        """Return the memory of the largest worker in MB."""
        return max(map(resident_mb, self.fleet.worker_pids), default=0.0)

    def _round(
        self,
        number: int,
        faults: Sequence[Fault],
        commits: Iterator[str],
        buckets: Buckets,
        *,
        everything: bool = False,
    ) -> None:
        began = time.monotonic()
        chance = random.Random(f"round {self.seed} {[fault.number for fault in faults]}")  # noqa: S311
        now = Round(
            fleet=self.fleet,
            number=number,
            chance=chance,
            commits=commits,
            cases=[case for fault in faults if (case := case_of(fault.kind, fault.target))],
        )
        needs = frozenset(need for fault in faults for need in self.kinds[fault.kind].needs)
        visits = errands.errands(now, needs)
        over = threading.Event()
        clients = self._send(visits, over, chance)
        self._break_all(faults)
        undone = time.monotonic()
        self.fleet.mend()
        self._settle(clients, over, buckets)
        settled = time.monotonic()
        after = Aftermath(
            fleet=self.fleet,
            now=now,
            faults=faults,
            kinds=self.kinds,
            visits=visits,
            buckets=buckets,
            counts=self.counts,
            began=began,
            read=self._read,
            everything=everything,
        )
        known = len(self.counts.findings)
        check(after)
        self.counts.rounds += 1
        self.counts.settle_s.append(settled - undone)
        self.say(
            f"round {number}: {len(faults)} faults, {len(visits)} clients; faults "
            f"{undone - began:.1f} s, settled in {settled - undone:.1f} s, checked in "
            f"{time.monotonic() - settled:.1f} s; {self.counts.accepted} accepted, "
            f"{self.counts.lost} lost"
        )
        for finding in self.counts.findings[known:]:
            self.say(f"FOUND law {finding.law}: {finding.text} (faults {finding.faults})")

    def _send(
        self, visits: Sequence[Visit], over: threading.Event, chance: random.Random
    ) -> list[threading.Thread]:
        clients = []
        for number, visit in enumerate(visits):
            visitor = Visitor(self.fleet, visit, over, f"{self.seed} {visit.name} {number}")
            delay_s = chance.uniform(0, LOAD_S)

            def run(visitor: Visitor = visitor, delay_s: float = delay_s) -> None:
                over.wait(delay_s)
                visitor.run()

            clients.append(threading.Thread(target=run, daemon=True))
        for client in clients:
            client.start()
        return clients

    def _break_all(self, faults: Sequence[Fault]) -> None:
        """Run all faults at the same time, each at its moment, until all are undone."""
        threads = [threading.Thread(target=self._break, args=(fault,)) for fault in faults]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:  # an interruption: no fault may start a process after the fleet has ended
            self._interrupted.set()
            for thread in threads:
                thread.join()
            self._interrupted.clear()

    def _break(self, fault: Fault) -> None:
        within_s = fault.delay_s if fault.moment == RANDOM else MOMENT_S
        kind = self.kinds[fault.kind]
        try:
            with contextlib.ExitStack() as stack:
                with self.fleet.moments.at(fault.moment, within_s=within_s) as moment:
                    scene = Scene(fleet=self.fleet, fault=fault, moment=moment)
                    hit = stack.enter_context(kind.begin(scene))
                self._interrupted.wait(fault.hold_s)
            if hit == NOTHING:
                self.counts.missed[fault.kind] += 1
            spoiled = f", spoiled {sum(scene.hits)} requests" if scene.hits else ""
            late = "" if moment.reached or fault.moment == RANDOM else ", moment not reached"
            self.say(f"  fault {fault} hit {hit} for {fault.hold_s:.1f} s{spoiled}{late}")
        except Exception as exc:  # noqa: BLE001 - the campaign itself failed, which it reports
            self.counts.find(0, f"the fault {fault} broke: {exc!r}", (fault.number,))
        self.counts.kinds[fault.kind] += 1
        self.counts.faults += 1

    def _settle(
        self, clients: Sequence[threading.Thread], over: threading.Event, buckets: Buckets
    ) -> None:
        """Wait until all clients have their answers, and all regions their copies."""
        deadline = time.monotonic() + SETTLE_S
        for client in clients:
            client.join(max(0.0, deadline - time.monotonic()))
        over.set()
        for client in clients:
            client.join(30)
        if not self._happens(lambda: not buckets.lacking(), within_s=UNASKED_S):
            for key in buckets.lacking():
                self._ask_for(key)
            self._happens(lambda: not buckets.lacking(), within_s=SETTLE_S)
        self._happens(self._is_tidy, within_s=UNASKED_S)

    @staticmethod
    def _happens(happened: Callable[[], bool], *, within_s: float) -> bool:
        try:
            wait_until(happened, timeout_s=within_s)
        except AssertionError:
            return False
        return True

    def _ask_for(self, manifest_key: str) -> None:
        """Send a hit, which lists the repair of a copy that nothing else has listed."""
        self.counts.listed_by_hits += 1
        source, *repo, _, node, _, suffix = (
            manifest_key.removeprefix("manifests/v1/").removesuffix(".json").split("/")
        )
        path = f"/archiver/{source}/{'/'.join(repo)}/{node}?suffix={suffix}"
        with contextlib.suppress(*AWAY):
            headers = {"Authorization": f"Bearer {self.fleet.token}"}
            fetch(f"{self.fleet.bases[0]}{path}", headers=headers)

    def _is_tidy(self) -> bool:
        work = self.fleet.disk / "work"
        return not any(path.is_file() for path in work.rglob("*"))


def _commits(repository: GitRepository) -> Iterator[str]:
    """Yield a fresh commit each time."""
    number = 0
    while True:
        number += 1
        yield repository.commit({**SIMPLE, "noise": os.urandom(20_000), "n": b"%d" % number})
