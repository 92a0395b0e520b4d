"""Settings of how long archives are kept."""

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from archiver.retention import Retention, RetentionRule
from archiver.settings.section import Pattern, Section

GRACE_MARGIN = timedelta(hours=1)
"""A process that is cut off from the engine does not hear of an expiry. It looks into the buckets
again at least every half hour; clocks may differ as well."""


class RetentionRuleSettings(Section):
    """How long archives of some sources and repos are kept."""

    sources: tuple[Pattern, ...] = Field(default=("*",), min_length=1)
    """Patterns of the sources to which the rule applies."""
    repos: tuple[Pattern, ...] = Field(default=("*",), min_length=1)
    """Patterns of the repos to which the rule applies; `*` includes slashes."""
    keep: bool = False
    """Whether to keep these archives permanently. They count against `retention.budget_bytes`."""
    days: int | None = Field(default=None, ge=1, le=36_500)
    """Days without a use after which an archive expires."""
    budget_bytes: int | None = Field(default=None, ge=1)
    """Bytes that these archives may take in each region. Beyond that, the least recently used ones
    expire.
    """

    @model_validator(mode="after")
    def _require_a_decision(self) -> Self:
        limits = self.days is not None or self.budget_bytes is not None
        if self.keep == limits:
            raise ValueError("set either keep = true, or days or budget_bytes or both")
        return self


class RetentionSettings(Section):
    """How long archives are kept. Without limits, they are kept permanently."""

    days: int | None = Field(default=None, ge=1, le=36_500)
    """Days without a use after which an archive to which no rule applies expires. If not set, such
    archives are kept, as far as the budget allows.
    """
    budget_bytes: int | None = Field(default=None, ge=1)
    """Bytes that all archives together may take in each region. Beyond that, the least recently
    used ones expire. Archives that were used today or yesterday stay.
    """
    gc_s: float = Field(default=0, ge=0, le=604_800)
    """Seconds between runs by one worker of the fleet. 0: archives expire only when an operator
    runs `archiver gc --apply`.
    """
    rules: tuple[RetentionRuleSettings, ...] = ()
    """Rules for some sources and repos, as tables `[[retention.rules]]`. The first one that applies
    to an archive decides, instead of `retention.days`.
    """

    @property
    def gc_interval(self) -> timedelta:
        return timedelta(seconds=self.gc_s)

    @property
    def policy(self) -> Retention:
        rules = tuple(RetentionRule(**rule.model_dump()) for rule in self.rules)
        return Retention(rules=rules, days=self.days, budget_bytes=self.budget_bytes)
