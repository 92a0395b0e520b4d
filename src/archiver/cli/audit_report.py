"""What an audit found, for people and for programs."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from archiver.cli.terminal import printable
from archiver.drift import Content, Difference, Drift
from archiver.model import Manifest
from archiver.upkeep.finding import Fetched, Finding, Outcome

SHOWN = 20
"""Differences that are shown of an archive; programs are told more."""

ALARMS = (
    Outcome.DIFFERS,
    Outcome.INCOMPLETE,
    Outcome.GONE,
    Outcome.CORRUPT,
    Outcome.LOST,
)

_STYLES = {
    Outcome.SAME: "green",
    Outcome.REPACKED: "cyan",
    Outcome.DIFFERS: "bold red",
    Outcome.INCOMPLETE: "bold red",
    Outcome.GONE: "bold red",
    Outcome.CORRUPT: "bold red",
    Outcome.LOST: "bold red",
    Outcome.UNCHECKED: "yellow",
}
_WIDTH = max(map(len, Outcome)) + 2


def exit_code(outcomes: Counter[Outcome], *, complete: bool) -> int:
    if any(outcomes[alarm] for alarm in ALARMS):
        return 1
    return 75 if outcomes[Outcome.UNCHECKED] or not complete else 0


def summary(outcomes: Counter[Outcome]) -> str:
    total = outcomes.total()
    counts = ", ".join(f"{outcomes[each]} {each}" for each in Outcome if outcomes[each])
    return f"{total} {'archive' if total == 1 else 'archives'}{': ' if counts else ''}{counts}"


def show(finding: Finding) -> None:
    """Write to standard output what a person wants to know."""
    console = Console(highlight=False, soft_wrap=True)
    outcome = finding.outcome
    first = Text(f"{outcome:<{_WIDTH}}", style=_STYLES[outcome])
    console.print(first.append(printable(finding.archive.task_id), style="default not bold"))
    for line in _details(finding):
        console.print(Text(" " * _WIDTH + printable(line)))


def _details(finding: Finding) -> Iterator[str]:
    if failure := finding.failure:
        yield f"{failure.code}: {failure.message}"
    stored, fetched = finding.manifest, finding.fetched
    if not (stored and fetched) or finding.outcome is Outcome.SAME:
        return
    yield f"stored   {_digest(stored)}, {_maker(stored)}"
    yield f"fetched  {_digest(fetched)}, {_maker(fetched)}"
    if drift := finding.drift:
        yield from _members(drift)


def _digest(it: Manifest | Fetched | Content) -> str:
    return f"sha256 {it.sha256} ({it.size_bytes:,} bytes)"


def _maker(packed: Manifest | Fetched) -> str:
    return f"made by {packed.conversion.converter}" if packed.conversion else "as the host sends it"


def _members(drift: Drift) -> Iterator[str]:
    if drift.reordered:
        yield "the members come in another order"
    for difference in drift.differences[:SHOWN]:
        yield from _member(difference)
    if (more := drift.members - SHOWN) > 0:
        yield f"and {more:,} more"


def _member(difference: Difference) -> Iterator[str]:
    name = _shown(difference.name)
    match difference.stored, difference.fetched:
        case Content() as stored, Content() as fetched:
            yield f"{name}: {', '.join(difference.aspects)}"
            for aspect in difference.aspects:
                yield f"  stored   {_said(stored, aspect)}"
                yield f"  fetched  {_said(fetched, aspect)}"
        case Content(), _:
            yield f"{name}: only stored"
        case _:
            yield f"{name}: only fetched"


def _said(content: Content, aspect: str) -> str:
    match aspect:
        case "content":
            return _digest(content)
        case "mode":
            return f"mode {content.mode:04o}"
        case "time":
            return f"time {datetime.fromtimestamp(content.mtime, UTC).isoformat()}"
        case "link":
            return f"link to {_shown(content.link)}"
        case _:
            return content.kind


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _shown(name: bytes) -> str:
    """Return a name that does nothing to a terminal."""
    return printable(_text(name))


def as_line(finding: Finding) -> str:
    """Return the same, and more, as JSON in one line."""
    stored, fetched, drift = finding.manifest, finding.fetched, finding.drift
    return json.dumps(
        {
            "task": finding.archive.task_id,
            "outcome": finding.outcome,
            "stored": stored and _packed(stored),
            "fetched": fetched and _packed(fetched),
            "drift": None if drift is None else _drift(drift),
            "region": finding.region,
            "error": finding.failure and asdict(finding.failure),
        }
    )


def _packed(packed: Manifest | Fetched) -> dict[str, object]:
    return {
        "sha256": packed.sha256,
        "size": packed.size_bytes,
        "source_url": packed.source_url,
        "conversion": packed.conversion and asdict(packed.conversion),
    }


def _drift(drift: Drift) -> dict[str, object]:
    return {
        "members": drift.members,
        "reordered": drift.reordered,
        "differences": [
            {
                "name": _text(difference.name),
                "aspects": difference.aspects,
                "stored": difference.stored and _content(difference.stored),
                "fetched": difference.fetched and _content(difference.fetched),
            }
            for difference in drift.differences
        ],
    }


def _content(content: Content) -> dict[str, object]:
    return {
        "kind": content.kind,
        "mode": f"{content.mode:04o}",
        "time": content.mtime,
        "link": _text(content.link) or None,
        "size": content.size_bytes,
        "sha256": content.sha256 or None,
    }
