"""The findings of a diagnosis, as text and as JSON."""

import json
from collections import Counter

from rich.console import Console
from rich.text import Text

from archiver.client.text import printable
from archiver.diagnosis.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "bold yellow", Level.FAILED: "bold red"}
_WIDTH = max(map(len, Level)) + 2


def print_finding(finding: Finding, *, check_width: int) -> None:
    line = Text(f"{finding.level:<{_WIDTH}}", style=_STYLES[finding.level])
    words = printable(f"{finding.check:<{check_width}}  {format_finding(finding)}")
    line.append(words, style="default not bold")
    Console(highlight=False, soft_wrap=True).print(line)


def format_finding(finding: Finding) -> str:
    """Return what was found, and what to do, in one or two sentences."""
    found = _capitalized(finding.found)
    return f"{found}. {_capitalized(finding.action)}." if finding.action else found


def format_summary(counts: Counter[Level], duration_s: float) -> str:
    ok, warnings, failed = (counts[level] for level in Level)
    return (
        f"{ok} ok, {warnings} {'warning' if warnings == 1 else 'warnings'}, {failed} failed, "
        f"in {duration_s:.1f} s"
    )


def to_json_line(finding: Finding) -> str:
    return json.dumps(
        {
            "check": finding.check,
            "level": finding.level,
            "found": finding.found,
            "action": finding.action or None,
        }
    )


def to_json_summary(counts: Counter[Level], duration_s: float) -> str:
    return json.dumps(
        {
            "ok": counts[Level.OK],
            "warnings": counts[Level.WARNING],
            "failed": counts[Level.FAILED],
            "duration_s": round(duration_s, 3),
        }
    )


def _capitalized(clause: str) -> str:
    """Return *clause* with a capital letter, unless it begins with a name, as of a setting."""
    first, _, _ = clause.partition(" ")
    return f"{clause[:1].upper()}{clause[1:]}" if first.isalpha() else clause
