"""All kinds of faults. Each is a function that breaks something and mends it after the block."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.faults.fleet import Fleet
from tests.faults.moments import RANDOM, Moment
from tests.system.stack import REGIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a plan: what breaks, when, and for how long."""

    number: int
    kind: str
    target: str
    moment: str
    delay_s: float
    hold_s: float

    def __str__(self) -> str:
        return f"{self.number} {self.kind} target={self.target} moment={self.moment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a fault finds when it begins. ``hits`` counts the requests that a fault has spoiled."""

    fleet: Fleet
    fault: Fault
    moment: Moment
    hits: list[int] = field(default_factory=list)

    @property
    def target(self) -> str:
        return self.fault.target

    @property
    def number(self) -> int:
        """The number of the target, for those that are numbered."""
        return int(self.target) if self.target.isdecimal() else self.fault.number


Break = Callable[[Scene], AbstractContextManager[str]]
"""Breaks something during the block, and yields what it hit."""

REGION = "region"

HOLD_S = (0.3, 2.0)

NOTHING = "nothing"
"""What a fault hits if its target is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault. No two faults of one ``part`` are in one round.

    ``needs`` are errands without which the fault would hit nothing. ``excuses`` says that archives
    may be fetched again after it: it ends a fetch, or spoils what was fetched. ``alone`` means that
    no other fault is in its round.
    """

    name: str
    part: str
    begin: Break
    targets: tuple[str, ...] = ("",)
    moments: tuple[str, ...] = (RANDOM,)
    needs: tuple[str, ...] = ()
    hold_s: tuple[float, float] = HOLD_S
    excuses: bool = True
    alone: bool = False

    def parts(self, fault: Fault) -> frozenset[str]:
        """Return what *fault* breaks: a region for itself, or every one."""
        if self.part != REGION:
            return frozenset({self.part})
        return frozenset({fault.target} if fault.target in REGIONS else REGIONS)


@dataclass(slots=True)
class Catalogue:
    """Kinds by name. ``kind`` is a decorator that adds one."""

    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, kind: Kind) -> None:
        assert kind.name not in self.kinds, kind.name
        self.kinds[kind.name] = kind

    def merge(self, other: Mapping[str, Kind]) -> None:
        for kind in other.values():
            self.add(kind)
