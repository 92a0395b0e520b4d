"""The archives that a region lacked, and what became of them, as text and as JSON."""

import json

from archiver.client.text import printable
from archiver.upkeep.filled import COPIED, FOUND, Filled, Tally

_WIDTH = 8


def format_filled(filled: Filled) -> str:
    size = "" if filled.size_bytes is None else f", {filled.size_bytes:,} bytes"
    return f"{filled.outcome:<{_WIDTH}}  {printable(filled.archive.task_id)}{size}"


def format_summary(tally: Tally) -> str:
    """Return the counts of a fill, or of a dry run, which copies nothing."""
    if not tally.selected:
        return "no archive matches"
    count, outcome = (tally.found, FOUND) if tally.found else (tally.copied, COPIED)
    archives = "archive" if tally.selected == 1 else "archives"
    failures = "".join(f"; {count:,} {code}" for code, count in sorted(tally.failures.items()))
    counts = f"{count:,} {outcome}, {tally.size_bytes:,} bytes{failures}"
    return f"{tally.selected:,} {archives}: {counts}"


def to_json_line(filled: Filled) -> str:
    return json.dumps(
        {
            "task": filled.archive.task_id,
            "outcome": filled.outcome,
            "size": filled.size_bytes,
        }
    )


def to_json_summary(tally: Tally, duration_s: float) -> str:
    return json.dumps(
        {
            "selected": tally.selected,
            "found": tally.found,
            "copied": tally.copied,
            "bytes": tally.size_bytes,
            "failures": dict(sorted(tally.failures.items())),
            "duration_s": round(duration_s, 3),
        }
    )
