"""Stored archives as lines, as JSON, and as totals."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from archiver.client.text import printable
from archiver.upkeep.catalogue import Entry
from archiver.upkeep.catalogue_json import render_entry


@dataclass(slots=True)
class Total:
    archives: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.archives += 1
        self.size_bytes += size_bytes


@dataclass(slots=True, kw_only=True)
class Totals:
    """Totals of all archives, of each source, and of each repo of a source."""

    everything: Total = field(default_factory=Total)
    sources: dict[str, Total] = field(default_factory=dict)
    repos: dict[tuple[str, str], Total] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        archive, size_bytes = entry.archive, entry.manifest.size_bytes
        self.everything.add(size_bytes)
        self.sources.setdefault(archive.source, Total()).add(size_bytes)
        self.repos.setdefault((archive.source, archive.repo), Total()).add(size_bytes)

    def lines(self) -> Iterator[str]:
        """Yield a line for each source, followed by its repos, the largest first."""
        for source, total in _largest_first(self.sources):
            yield _total_line(source, total)
            own = {repo: each for (of, repo), each in self.repos.items() if of == source}
            for repo, each in _largest_first(own):
                yield _total_line(f"{source} {repo}", each)

    def json_lines(self) -> Iterator[str]:
        for source, total in _largest_first(self.sources):
            yield _total_json(source, None, total)
        for (source, repo), total in self.repos.items():
            yield _total_json(source, repo, total)


def _largest_first(totals: dict[str, Total]) -> list[tuple[str, Total]]:
    return sorted(totals.items(), key=lambda item: (-item[1].size_bytes, item[0]))


def _total_line(name: str, total: Total) -> str:
    return f"{total.size_bytes:>19,}  {total.archives:>11,}  {printable(name)}"


def _total_json(source: str, repo: str | None, total: Total) -> str:
    return json.dumps(
        {"source": source, "repo": repo, "archives": total.archives, "bytes": total.size_bytes}
    )


def format_entry(entry: Entry) -> str:
    created = f"{entry.manifest.created_at:%Y-%m-%d %H:%M:%S}"
    used = f"  {entry.last_use}" if entry.last_use else ""
    size = f"{entry.manifest.size_bytes:>15,}"
    return f"{created}{used}  {size}  {printable(entry.archive.task_id)}"


def to_json_line(entry: Entry) -> str:
    return json.dumps(render_entry(entry))


def format_summary(total: Total, unreadable: int) -> str:
    archives = "archive" if total.archives == 1 else "archives"
    damaged = f"; {unreadable:,} manifests cannot be read" if unreadable else ""
    return f"{total.archives:,} {archives}, {total.size_bytes:,} bytes{damaged}"
