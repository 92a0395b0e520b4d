"""The findings of an audit, as text and as JSON."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from archiver.client.failures import CommandFailed, RetryLater
from archiver.client.text import printable
from archiver.drift import Content, Difference, Drift
from archiver.model import Manifest
from archiver.upkeep.finding import Fetched, Finding, Outcome

DIFFERENCES_MAX = 20
"""Differences printed for one archive; the JSON has more."""

ALARMS = (Outcome.DIFFERS, Outcome.INCOMPLETE, Outcome.GONE, Outcome.CORRUPT, Outcome.LOST)

READ_ON = "docs/how-to/audit.md says what each outcome means, and what to do."

_STYLES = {Outcome.SAME: "green", Outcome.REPACKED: "cyan", Outcome.UNCHECKED: "yellow"}
_ALARM_STYLE = "bold red"
_WIDTH = max(map(len, Outcome)) + 2


def raise_alarms(outcomes: Counter[Outcome]) -> None:
    """Raise CommandFailed if an archive is not what its host sends; RetryLater if that is open."""
    if alarms := sum(outcomes[alarm] for alarm in ALARMS):
        raise CommandFailed(f"{_count(alarms)} not what the host sends", hint=READ_ON)
    if unchecked := outcomes[Outcome.UNCHECKED]:
        raise RetryLater(f"{_count(unchecked)} unchecked")


def _count(number: int) -> str:
    return "1 archive is" if number == 1 else f"{number:,} archives are"


def format_summary(outcomes: Counter[Outcome]) -> str:
    total = outcomes.total()
    counts = ", ".join(f"{outcomes[each]} {each}" for each in Outcome if outcomes[each])
    return f"{total} {'archive' if total == 1 else 'archives'}{': ' if counts else ''}{counts}"


def print_finding(finding: Finding) -> None:
    console = Console(highlight=False, soft_wrap=True)
    outcome = finding.outcome
    first = Text(f"{outcome:<{_WIDTH}}", style=_STYLES.get(outcome, _ALARM_STYLE))
    console.print(first.append(printable(finding.archive.task_id), style="default not bold"))
    for line in _iter_details(finding):
        console.print(Text(" " * _WIDTH + printable(line)))


def _iter_details(finding: Finding) -> Iterator[str]:
    if failure := finding.failure:
        yield f"{failure.code}: {failure.message}"
    stored, fetched = finding.manifest, finding.fetched
    if not (stored and fetched) or finding.outcome is Outcome.SAME:
        return
    yield f"stored   {_format_sha256(stored)}, {_format_origin(stored)}"
    yield f"fetched  {_format_sha256(fetched)}, {_format_origin(fetched)}"
    if drift := finding.drift:
        yield from _iter_differences(drift)


def _format_sha256(content: Manifest | Fetched | Content) -> str:
    return f"sha256 {content.sha256} ({content.size_bytes:,} bytes)"


def _format_origin(archive: Manifest | Fetched) -> str:
    conversion = archive.conversion
    return f"made by {conversion.converter}" if conversion else "as sent by the host"


def _iter_differences(drift: Drift) -> Iterator[str]:
    if drift.reordered:
        yield "the order of the members differs"
    for difference in drift.differences[:DIFFERENCES_MAX]:
        yield from _iter_aspects(difference)
    if (more := drift.members - DIFFERENCES_MAX) > 0:
        yield f"and {more:,} more"


def _iter_aspects(difference: Difference) -> Iterator[str]:
    name = _printable_name(difference.name)
    match difference.stored, difference.fetched:
        case Content() as stored, Content() as fetched:
            yield f"{name}: {', '.join(difference.aspects)}"
            for aspect in difference.aspects:
                yield f"  stored   {_format_aspect(stored, aspect)}"
                yield f"  fetched  {_format_aspect(fetched, aspect)}"
        case Content(), _:
            yield f"{name}: only stored"
        case _:
            yield f"{name}: only fetched"


def _format_aspect(content: Content, aspect: str) -> str:
    match aspect:
        case "content":
            return _format_sha256(content)
        case "mode":
            return f"mode {content.mode:04o}"
        case "time":
            return f"time {datetime.fromtimestamp(content.mtime, UTC).isoformat()}"
        case "link":
            return f"link to {_printable_name(content.link)}"
        case _:
            return content.kind


def _decode_name(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _printable_name(name: bytes) -> str:
    return printable(_decode_name(name))


def to_json_line(finding: Finding) -> str:
    stored, fetched, drift = finding.manifest, finding.fetched, finding.drift
    return json.dumps(
        {
            "task": finding.archive.task_id,
            "outcome": finding.outcome,
            "stored": stored and _archive_to_json(stored),
            "fetched": fetched and _archive_to_json(fetched),
            "drift": None if drift is None else _drift_to_json(drift),
            "region": finding.region,
            "error": finding.failure and asdict(finding.failure),
        }
    )


def _archive_to_json(archive: Manifest | Fetched) -> dict[str, object]:
    return {
        "sha256": archive.sha256,
        "size": archive.size_bytes,
        "source_url": archive.source_url,
        "conversion": archive.conversion and asdict(archive.conversion),
    }


def _drift_to_json(drift: Drift) -> dict[str, object]:
    return {
        "members": drift.members,
        "reordered": drift.reordered,
        "differences": [
            {
                "name": _decode_name(difference.name),
                "aspects": difference.aspects,
                "stored": difference.stored and _content_to_json(difference.stored),
                "fetched": difference.fetched and _content_to_json(difference.fetched),
            }
            for difference in drift.differences
        ],
    }


def _content_to_json(content: Content) -> dict[str, object]:
    return {
        "kind": content.kind,
        "mode": f"{content.mode:04o}",
        "time": content.mtime,
        "link": _decode_name(content.link) or None,
        "size": content.size_bytes,
        "sha256": content.sha256 or None,
    }
