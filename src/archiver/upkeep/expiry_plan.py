"""Chooses the archives that expire: a pure calculation over all archives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from archiver.model import Archive, Region, parse_key
from archiver.retention import RECENT, Retention


class Reason(StrEnum):
    """Why an archive expires."""

    UNUSED = "unused"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """An archive that should expire. ``size_bytes`` is the size of its objects in all regions."""

    archive: Archive
    reason: Reason
    last_use: date
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """Bytes in *region* beyond a budget: that of a rule, counted from 1, or that of all (None)."""

    region: Region
    rule: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An archive that may expire, in some 350 bytes: its key takes less memory than the archive.

    ``sizes`` are in the order of regions.
    """

    last_use: date
    key: str
    rule: int
    sizes: tuple[int, ...]


class ExpiryPlan:
    """Chooses among all archives. Yields the least recently used ones first."""

    def __init__(self, *, retention: Retention, regions: Sequence[Region], today: date) -> None:
        self._retention = retention
        self._regions = tuple(regions)
        self._today = today
        rules = len(retention.all_rules)
        self._totals = [[0] * len(self._regions) for _ in range(rules)]
        self._unused: list[_Candidate] = []
        self._others: list[_Candidate] = []

    def add(self, archive: Archive, *, sizes: Sequence[int], last_use: date, pinned: bool) -> None:
        """Add an archive, whose objects have these *sizes* in the regions."""
        number = self._retention.rule_number(archive)
        rule = self._retention.all_rules[number]
        protected = pinned or rule.keep or self._today - last_use <= RECENT
        candidate = _Candidate(last_use=last_use, key=archive.key, rule=number, sizes=tuple(sizes))
        if not protected and rule.is_unused(last_use, self._today):
            self._unused.append(candidate)
            return
        self._count(candidate, 1)
        budgets = (rule.budget_bytes, self._retention.budget_bytes)
        if not protected and budgets != (None, None):
            self._others.append(candidate)

    def expiries(self) -> Iterator[Expiry]:
        """Yield the archives that expire. What then exceeds a budget is in ``excesses``."""
        for candidate in sorted(self._unused, key=_order):
            yield _expiry(candidate, Reason.UNUSED)
        self._others.sort(key=_order)
        for number, rule in enumerate(self._retention.all_rules):
            if (budget := rule.budget_bytes) is not None:
                yield from self._within(budget, number)
        if (budget := self._retention.budget_bytes) is not None:
            yield from self._within(budget, None)

    def _within(self, budget: int, number: int | None) -> Iterator[Expiry]:
        """Yield expiries until *budget* suffices in each region: for a rule, or for all."""
        left: list[_Candidate] = []
        for candidate in self._others:
            excess = [total > budget for total in self._sums(number)]
            over = any(
                size and exceeds for size, exceeds in zip(candidate.sizes, excess, strict=True)
            )
            if over and number in {None, candidate.rule}:
                self._count(candidate, -1)
                yield _expiry(candidate, Reason.BUDGET)
            else:
                left.append(candidate)
        self._others = left

    def excesses(self) -> Iterator[Excess]:
        """Yield what exceeds a budget after all expiries, because it is kept."""
        budgets = [(n, rule.budget_bytes) for n, rule in enumerate(self._retention.all_rules)]
        for number, budget in (*budgets, (None, self._retention.budget_bytes)):
            for region, total in zip(self._regions, self._sums(number), strict=True):
                if budget is not None and total > budget:
                    rule = None if number is None else number + 1
                    yield Excess(region=region, rule=rule, size_bytes=total - budget)

    def _sums(self, number: int | None) -> list[int]:
        """Return the bytes in each region: of a rule, or of all."""
        if number is not None:
            return self._totals[number]
        return [sum(column) for column in zip(*self._totals, strict=True)]

    def _count(self, candidate: _Candidate, sign: int) -> None:
        totals = self._totals[candidate.rule]
        for place, size in enumerate(candidate.sizes):
            totals[place] += sign * size


def _order(candidate: _Candidate) -> tuple[date, str]:
    return candidate.last_use, candidate.key


def _expiry(candidate: _Candidate, reason: Reason) -> Expiry:
    archive = parse_key(candidate.key)
    if archive is None:
        raise ValueError("not the key of an archive")
    return Expiry(
        archive=archive,
        reason=reason,
        last_use=candidate.last_use,
        size_bytes=sum(candidate.sizes),
    )
