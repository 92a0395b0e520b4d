"""How long archives are kept: rules, and budgets of bytes in each region."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from archiver.access.patterns import EVERYTHING, matches_any
from archiver.model import Archive

RECENT = timedelta(days=1)
"""The last use of an archive is known to the day. If that is today or yesterday, the archive stays,
whatever the budget is: a client may be about to download it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """A rule for archives of some sources and repos, by patterns.

    Archives without a use for more than ``days`` expire. If the archives of the rule take more
    than ``budget_bytes`` in a region, the least recently used ones expire. With ``keep``, none do.
    """

    sources: Sequence[str] = EVERYTHING
    repos: Sequence[str] = EVERYTHING
    keep: bool = False
    days: int | None = None
    budget_bytes: int | None = None

    def applies_to(self, archive: Archive) -> bool:
        return matches_any(archive.source, self.sources) and matches_any(archive.repo, self.repos)

    def is_unused(self, last_use: date, today: date) -> bool:
        return self.days is not None and today - last_use > timedelta(days=self.days)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The first of *rules* that applies to an archive decides; without one, *days* do.

    ``budget_bytes`` bounds all archives of a region together. Kept archives count against it.
    """

    rules: Sequence[RetentionRule] = ()
    days: int | None = None
    budget_bytes: int | None = None

    @cached_property
    def all_rules(self) -> tuple[RetentionRule, ...]:
        """The rules, and one for all other archives."""
        return (*self.rules, RetentionRule(days=self.days))

    def rule_number(self, archive: Archive) -> int:
        """Return the place in ``all_rules`` of the rule for *archive*."""
        return next(n for n, rule in enumerate(self.all_rules) if rule.applies_to(archive))

    @property
    def keeps_everything(self) -> bool:
        return self.budget_bytes is None and all(
            rule.days is None and rule.budget_bytes is None for rule in self.all_rules
        )
