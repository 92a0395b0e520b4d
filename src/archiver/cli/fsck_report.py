"""The defects that a check of the buckets found, as text and as JSON."""

import json

from rich.console import Console
from rich.text import Text

from archiver.cli.progress import write_above_bar
from archiver.client.text import printable
from archiver.upkeep.defect import Defect, DefectKind
from archiver.upkeep.fsck import Tally

_WIDTH = max(map(len, DefectKind)) + 2


def print_defect(defect: Defect) -> None:
    style = "green" if defect.repaired else "bold red"
    size = "" if defect.size_bytes is None else f", {defect.size_bytes:,} bytes"
    place = defect.region or "index"
    line = Text(f"{defect.kind:<{_WIDTH}}", style=style)
    line.append(printable(f"{place}  {defect.key}{size}"), style="default not bold")
    line.append(_repair(defect), style="default not bold")
    if not write_above_bar(line):
        Console(highlight=False, soft_wrap=True).print(line)


def _repair(defect: Defect) -> str:
    if not defect.repaired:
        return ""
    match defect.kind:
        case DefectKind.ORPHAN | DefectKind.UNFINISHED:
            return ": removed"
        case DefectKind.UNINDEXED | DefectKind.MISINDEXED:
            return ": indexed"
        case _:
            return ": repaired"


def format_summary(tally: Tally) -> str:
    archives = "archive" if tally.archives == 1 else "archives"
    found = ", ".join(f"{tally.found[kind]:,} {kind}" for kind in DefectKind if tally.found[kind])
    repaired = f"; {tally.repaired.total():,} repaired" if tally.repaired.total() else ""
    return f"{tally.archives:,} {archives}: {found or 'no defects'}{repaired}"


def to_json_line(defect: Defect) -> str:
    return json.dumps(
        {
            "defect": defect.kind,
            "region": defect.region,
            "key": defect.key,
            "size": defect.size_bytes,
            "task": defect.archive and defect.archive.task_id,
            "repaired": defect.repaired,
        }
    )


def to_json_summary(tally: Tally, duration_s: float) -> str:
    return json.dumps(
        {
            "archives": tally.archives,
            "objects": tally.objects,
            "bytes": tally.size_bytes,
            "found": {kind: tally.found[kind] for kind in DefectKind if tally.found[kind]},
            "repaired": {kind: tally.repaired[kind] for kind in DefectKind if tally.found[kind]},
            "unanswered": tally.unanswered,
            "duration_s": round(duration_s, 3),
        }
    )
