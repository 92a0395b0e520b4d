"""The results of gc as lines and as JSON."""

import json
from collections.abc import Iterator
from datetime import timedelta

from archiver.client.text import printable
from archiver.upkeep.expiry_plan import Excess
from archiver.upkeep.gc import GcTally, Result


def format_result(result: Result) -> str:
    expiry, kept = result.expiry, f" ({result.kept})" if result.kept else ""
    return (
        f"{result.outcome:<10}  {expiry.reason:<6}  {expiry.last_use}  {expiry.size_bytes:>15,}  "
        f"{printable(expiry.archive.task_id)}{kept}"
    )


def to_json_line(result: Result) -> str:
    expiry = result.expiry
    return json.dumps(
        {
            "task": expiry.archive.task_id,
            "outcome": result.outcome,
            "reason": expiry.reason,
            "last_use": expiry.last_use.isoformat(),
            "size": expiry.size_bytes,
            **({"kept": result.kept} if result.kept else {}),
        }
    )


def summary_lines(tally: GcTally, grace: timedelta, *, applied: bool) -> Iterator[str]:
    """Yield what a run did or, unless *applied*, would do. Sizes are those of all regions."""
    archives = _count(tally.archives, "archive")
    if applied:
        yield f"{archives}: {tally.expired:,} expired, {_left(tally)}"
        yield (
            f"{_count(tally.removed, 'object')} of archives that expired earlier removed, "
            f"{tally.removed_bytes:,} bytes"
        )
        if tally.expired or tally.waiting:
            minutes = grace.total_seconds() / 60
            yield (
                f"the bytes of an expired archive stay for {minutes:.0f} minutes, while links lead "
                "there: run this again, or leave it to a sweep"
            )
    else:
        yield f"{archives}: {tally.planned:,} would expire, {tally.planned_bytes:,} bytes"
        if tally.waiting:
            yield f"{_count(tally.waiting, 'object')} of expired archives, not yet removed"
        yield "nothing was changed: use --apply to expire them"
    for excess in tally.excesses:
        yield _excess_line(excess)


def _left(tally: GcTally) -> str:
    return f"{tally.kept:,} kept after all, {tally.unanswered:,} left for the next run"


def _excess_line(excess: Excess) -> str:
    budget = "the budget" if excess.rule is None else f"the budget of rule {excess.rule}"
    return (
        f"{excess.region} exceeds {budget} by {excess.size_bytes:,} bytes, because the other "
        "archives are kept, pinned or in use"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def to_json_summary(tally: GcTally, duration_s: float, *, applied: bool) -> str:
    return json.dumps(
        {
            "applied": applied,
            "archives": tally.archives,
            "planned": tally.planned,
            "planned_bytes": tally.planned_bytes,
            "expired": tally.expired,
            "kept": tally.kept,
            "unanswered": tally.unanswered,
            "removed": tally.removed,
            "removed_bytes": tally.removed_bytes,
            "waiting": tally.waiting,
            "waiting_bytes": tally.waiting_bytes,
            "excesses": [
                {"region": each.region, "rule": each.rule, "bytes": each.size_bytes}
                for each in tally.excesses
            ],
            "duration_s": round(duration_s, 3),
        }
    )
