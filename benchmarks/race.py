"""Runs contestants in turn, and formats medians, spreads and ratios as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Contestant = Callable[[], float]
"""Runs once; returns the duration in seconds, or another measured value."""

Tell = Callable[[str], None]


def race(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int,
    tidy: Callable[[], None] = lambda: None,
    tell: Tell = print,
    unit: str = "s",
) -> dict[str, list[float]]:
    """Return the measured values of each contestant, one per round.

    The contestants alternate, so that changes of the machine's load affect all of them. *tidy*
    removes their files, outside of the measured time.
    """
    taken: dict[str, list[float]] = {what: [] for what in contestants}
    for number in range(1, rounds + 1):
        for what, run in contestants.items():
            taken[what].append(run())
            tidy()
            tell(f"  round {number} of {rounds}: {what}: {taken[what][-1]:,.3f} {unit}")
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Measured values, one per round. ``goal`` is for the ratio, if the table has ratios."""

    what: str
    samples: Sequence[float]
    goal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of one unit. ``base`` names the row to which every row has a ratio, if any."""

    unit: str
    rows: Sequence[Row]
    title: str = ""
    base: str = ""
    digits: int = 1

    def markdown(self) -> str:
        head = [self.title, f"median, {self.unit}", "min to max"]
        head += [f"÷ {self.base}", "min to max"] if self.base else []
        head += ["goal"] if self._has_goals else []
        lines = [head, ["---"] + ["--:"] * (len(head) - 1), *map(self._cells, self.rows)]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def _cells(self, row: Row) -> list[str]:
        cells = [row.what, *_spread(row.samples, self.digits)]
        if self.base:
            cells += _spread(ratios(row.samples, self._base_samples), 2)
        return [*cells, row.goal] if self._has_goals else cells

    @property
    def _has_goals(self) -> bool:
        return any(row.goal for row in self.rows)

    @property
    def _base_samples(self) -> Sequence[float]:
        (base,) = (row for row in self.rows if row.what == self.base)
        return base.samples


def ratios(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the ratio of each round, which a slow round does not change."""
    return [sample / other for sample, other in zip(samples, base, strict=True)]


def _spread(samples: Sequence[float], digits: int) -> list[str]:
    return [
        f"{median(samples):,.{digits}f}",
        f"{min(samples):,.{digits}f} to {max(samples):,.{digits}f}",
    ]
