"""docs/reliability.md: prose by hand, and the counts of the latest campaign between markers."""

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median

from archiver import __version__
from benchmarks.document import insert, machine
from tests.faults.counts import Counts
from tests.faults.kinds import Kind
from tests.parts.nats import nats_binary
from tests.parts.s3 import binary

TOPIC = "campaign"

_NUMBER = re.compile(r"[0-9]+[.][0-9.]*[0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The counts of a campaign, which took ``took_s``, as a page shows them."""

    counts: Counts
    seed: int
    kinds: Mapping[str, Kind]
    took_s: float

    def write(self, page: Path) -> None:
        """Replace the counts on *page*."""
        text = "\n".join(self.lines())
        page.write_text(insert(page.read_text(), TOPIC, f"\n{text}\n\n"))

    def lines(self) -> Iterator[str]:
        counts = self.counts
        yield f"{datetime.now(UTC):%Y-%m-%d}, Archiver {__version__}, {machine()}."
        yield f"{_version(nats_binary(), '--version')}; {_version(binary('weed'), 'version')}."
        yield (
            f"Seed {self.seed}: {counts.faults} faults in {counts.rounds} rounds, "
            f"{self.took_s / 60:.0f} min."
        )
        yield from _table(("count", "number"), self._numbers())
        yield from _table(("fetches of an archive", "archives"), sorted(counts.fetches.items()))
        yield from _table(("cause of another fetch", "fetches"), counts.causes.most_common())
        yield from _table(("code of a FAILURE", "clients"), counts.failures.most_common())
        yield from _table(("kinds", "faults", "without a target"), self._groups())
        if not counts.findings:
            yield from ("", "No law was broken.")
        yield from _table(("law broken", "faults of the round", "how"), self._findings())

    def _numbers(self) -> Iterator[tuple[str, object]]:
        counts = self.counts
        yield "clients whose task was accepted", counts.accepted
        yield "of these, SUCCESS", counts.succeeded
        yield "of these, FAILURE", counts.failed
        yield "of these, lost", counts.lost
        yield "clients without an answer", counts.unanswered
        yield "archives visible", counts.visible
        yield "archives visible and not whole", counts.not_whole
        yield "presigned URLs followed", counts.links
        yield "presigned URLs to nothing", counts.dead_links
        yield "copies that only another hit had repaired", counts.listed_by_hits
        yield "objects orphaned", counts.orphans
        yield "uploads unfinished", counts.unfinished
        yield "files left on the workers' disk", counts.left_files
        yield "most fetches at once", counts.most_at_once
        yield "seconds to settle, median", f"{median(counts.settle_s):.1f}"
        yield "seconds to settle, longest", f"{max(counts.settle_s):.1f}"
        yield "largest worker at the start, MB", f"{counts.memory_mb[0]:.0f}"
        yield "largest worker at the end, MB", f"{counts.memory_mb[-1]:.0f}"

    def _findings(self) -> Iterator[tuple[object, ...]]:
        for each in self.counts.findings:
            yield each.law, ", ".join(map(str, each.faults)), each.text

    def _groups(self) -> Iterator[tuple[str, int, int]]:
        """Yield the faults of the kinds whose names begin with the same word."""
        for word, names in groupby(sorted(self.kinds), key=lambda name: name.split("-")[0]):
            mine = list(names)
            done = sum(self.counts.kinds[name] for name in mine)
            missed = sum(self.counts.missed[name] for name in mine)
            yield f"`{word}-…` ({len(mine)})", done, missed


def _version(program: Path, word: str) -> str:
    done = subprocess.run([str(program), word], capture_output=True, check=False, text=True)
    first = (done.stdout or done.stderr).strip().splitlines()[0]
    return f"{program.name} {_NUMBER.findall(first)[0]}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Yield a table, unless it is empty."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if lines:
        yield ""
        yield f"| {' | '.join(head)} |"
        yield "| --- |" + " --: |" * (len(head) - 1)
        yield from lines
