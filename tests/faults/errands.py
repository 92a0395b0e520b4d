"""What clients want in a round: archives that are fresh, in every way that Archiver offers.

Each errand returns visits. ``ERRANDS`` has those of every round, and those that a fault may need.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.faults.fleet import Fleet
from tests.faults.host import Offer, sound_case
from tests.faults.visits import How, Visit
from tests.parts.fault_cases import Case, node_of

LARGE_BYTES = 7 << 20
"""More than one part of an upload to S3."""

CHANGES = "other-bytes"
"""The beginning of the names of cases in which the host changes its bytes."""

PACES_S = (0.0, 0.2, 0.6, 1.2)
CROWD = 4
FLOOD = 16
"""Tasks of one client in a flood: more than the turns that law 11 allows it before another."""


@dataclass(slots=True, kw_only=True)
class Round:
    """What errands need: the fleet, the round's number, and its own source of chance.

    ``forbidden`` are requests whose answers must not show that an archive exists. ``floods`` are
    pairs of a light client's visit and the names of a heavy client's archives.
    """

    fleet: Fleet
    number: int
    chance: random.Random
    commits: Iterator[str]
    cases: list[Case] = field(default_factory=list)
    forbidden: list[Visit] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    floods: list[tuple[Visit, list[str]]] = field(default_factory=list)
    _names: int = 0

    def name(self, what: str) -> str:
        self._names += 1
        return f"{what}-{self.number}-{self._names}"

    def address(self) -> str:
        """Return the address of a client that has done nothing yet."""
        self._names += 1
        return f"10.{self.number >> 8 & 255}.{self.number & 255}.{self._names & 255}"

    def visit(
        self,
        name: str,
        *,
        source: str = "hgmo",
        suffix: str = "tar.gz",
        how: How = "poll",
        expected: str | None = None,
        token: str = "",
        method: str = "GET",
    ) -> Visit:
        repo, node = f"faults/{name}", node_of(name)
        path = f"/archiver/{source}/{repo}/{node}?suffix={suffix}"
        if how == "file":
            path = f"/get/{source}/{repo}/{node}.{suffix}"
        return Visit(
            path=path,
            address=self.address(),
            how=how,
            method=method,
            token=token,
            expected=expected,
            name=name,
        )

    def fresh(self, what: str, *, suffix: str = "tar.gz", size_bytes: int | None = None) -> str:
        """Have the host serve a fresh archive, and return its name."""
        name = self.name(what)
        pace_s = self.chance.choice(PACES_S)
        self.fleet.host.offer(sound_case(suffix, size_bytes), name, pace_s=pace_s)
        return name

    def sha256(self, name: str) -> str:
        return self.fleet.host.sha256(name)


def _plain(now: Round) -> Iterator[Visit]:
    name = now.fresh("plain")
    yield now.visit(name, expected=now.sha256(name))


def _waiting(now: Round) -> Iterator[Visit]:
    name = now.fresh("waiting")
    yield now.visit(name, how="wait", expected=now.sha256(name))


def _file(now: Round) -> Iterator[Visit]:
    name = now.fresh("file", suffix="zip")
    yield now.visit(name, how="file", suffix="zip", expected=now.sha256(name))


def _crowd(now: Round) -> Iterator[Visit]:
    name = now.fresh("crowd")
    for number in range(CROWD):
        yield now.visit(name, how="wait" if number % 2 else "poll", expected=now.sha256(name))


def _named(now: Round) -> Iterator[Visit]:
    name = now.fresh("named")
    yield now.visit(name, source="named", expected=now.sha256(name))


def _conversion(now: Round) -> Iterator[Visit]:
    name = now.fresh("conversion", suffix="zip", size_bytes=LARGE_BYTES)
    yield now.visit(name, source="zips", suffix="tar.xz")


def _git(now: Round) -> Iterator[Visit]:
    node = next(now.commits)
    path = f"/archiver/lab/group/project/{node}"
    yield Visit(path=path, address=now.address(), name=node, label="git")


def _large(now: Round) -> Iterator[Visit]:
    name = now.fresh("large", size_bytes=LARGE_BYTES)
    yield now.visit(name, expected=now.sha256(name))


def _head(now: Round) -> Iterator[Visit]:
    name = now.fresh("head")
    now.absent.append(name)
    yield now.visit(name, method="HEAD", expected="")


def _hidden(now: Round) -> Iterator[Visit]:
    name = now.fresh("hidden")
    token = now.fleet.token
    yield now.visit(name, source="hidden", token=token, expected=now.sha256(name))
    for method in ("GET", "HEAD"):
        visit = now.visit(name, source="hidden", method=method)
        now.forbidden.append(visit)
        yield visit


def _announced(now: Round) -> Iterator[Visit]:
    name = now.fresh("announced")
    yield now.visit(name, how="announce", expected=now.sha256(name))


def _batch(now: Round) -> Iterator[Visit]:
    """Another client requests one of the archives, which has no urgency until then."""
    names = [now.fresh("batch") for _ in range(2)]
    for name in names:
        yield now.visit(name, how="batch", expected=now.sha256(name))
    yield now.visit(names[0], expected=now.sha256(names[0]))


def _flood(now: Round) -> Iterator[Visit]:
    address = now.address()
    names = [now.fresh("heavy") for _ in range(FLOOD)]
    for name in names:
        visit = now.visit(name, expected=now.sha256(name))
        visit.address = address
        yield visit
    light = now.fresh("light")
    visit = now.visit(light, expected=now.sha256(light))
    visit.label = "light"
    now.floods.append((visit, names))
    yield visit


def _faulty(now: Round) -> Iterator[Visit]:
    for case in now.cases:
        name = now.name(case.name)
        offer = now.fleet.host.offer(case, name)
        visit = now.visit(name, suffix=case.suffix, expected=_expected(offer))
        visit.label = "faulty host"
        yield visit


def _expected(offer: Offer) -> str | None:
    """Return what may be stored of a case: nothing if its fault persists.

    If the host changes its bytes, another fault of the round decides which of them are stored.
    """
    case = offer.case
    if case.name.startswith(CHANGES):
        return None
    return "" if case.code else hashlib.sha256(case.stored(offer.subject)).hexdigest()


Errand = Callable[[Round], Iterator[Visit]]

ERRANDS: Mapping[str, Errand] = {
    "plain": _plain,
    "waiting": _waiting,
    "file": _file,
    "crowd": _crowd,
    "named": _named,
    "conversion": _conversion,
    "git": _git,
    "large": _large,
    "head": _head,
    "hidden": _hidden,
    "announced": _announced,
    "batch": _batch,
    "flood": _flood,
    "faulty": _faulty,
}

ALWAYS = ("plain", "waiting", "faulty")
"""Errands of every round; of the others, each round has some."""

SOMETIMES = (
    *("file", "crowd", "named", "conversion", "git", "large", "head", "hidden"),
    *("announced", "batch"),
)
EACH_ROUND = 4
FLOOD_EVERY = 5


def errands(now: Round, needed: frozenset[str]) -> list[Visit]:
    """Return the visits of a round: those that its faults need, and some others."""
    names = [*ALWAYS, *now.chance.sample(SOMETIMES, EACH_ROUND), *sorted(needed)]
    if now.number % FLOOD_EVERY == 0:
        names.append("flood")
    return [visit for name in dict.fromkeys(names) for visit in ERRANDS[name](now)]
