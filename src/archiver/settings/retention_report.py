"""What operators should know of their retention settings."""

from collections.abc import Iterator

from archiver.access.patterns import matches_any
from archiver.settings.tree import Settings


def retention_summary(settings: Settings) -> str:
    """Return in a few words what is kept, and what makes archives expire."""
    retention = settings.retention
    if retention.policy.keeps_everything:
        return "everything is kept"
    if retention.gc_s:
        return f"a worker runs gc every {retention.gc_s:g} s"
    return "archives expire only by `archiver gc --apply`"


def retention_warnings(settings: Settings) -> Iterator[str]:
    """Yield what an operator may have overlooked. Rules count from 1, as in ``archiver gc``."""
    retention = settings.retention
    if retention.gc_s and retention.policy.keeps_everything:
        yield "retention.gc_s has no effect, because nothing expires"
    for number, rule in enumerate(retention.rules, 1):
        if not any(matches_any(name, rule.sources) for name in settings.sources):
            yield f"rule {number} of retention.rules applies to no source"
        if rule.sources == rule.repos == ("*",) and number < len(retention.rules):
            yield f"rule {number} of retention.rules applies always, so later rules never do"
