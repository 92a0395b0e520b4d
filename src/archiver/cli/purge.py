"""``archiver purge``: remove every trace of archives."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.signals import interruptible
from archiver.cli.task_argument import find_archive
from archiver.client.failures import CommandFailed, InvalidUsage, RetryLater
from archiver.client.text import printable
from archiver.errors import InvalidRequest, PinnedArchive, PurgeUnfinished
from archiver.manifest_check import is_sha256
from archiver.model import NODE_ALLOWED, Archive, Node, Region, parse_node
from archiver.names import require_name
from archiver.ports.storage import Traces
from archiver.purge import REASON_ALLOWED, PurgeOrder, Purger, is_reason
from archiver.settings import Settings, require_outside_world
from archiver.wiring.tools import open_purger

PRINCIPAL = "cli"

FOUND, PURGED, UNFINISHED, PINNED = "found", "purged", "unfinished", "pinned"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSelection:
    """All archives of a repo, or of one ``node`` of it."""

    source: str
    repo: str
    node: Node | None


Selection = Archive | RepoSelection | str
"""One archive; those of a repo; or those with a SHA-256."""


@dataclass(slots=True, kw_only=True)
class PurgeTally:
    """Counts of a run. ``silent`` are the regions that did not answer once or more often."""

    archives: int = 0
    total_bytes: int = 0
    unfinished: int = 0
    pinned: int = 0
    silent: dict[Region, None] = field(default_factory=dict)


_SHORT_NODE = re.compile(r"[0-9a-f]{7,39}")

Report = Callable[[Traces, str], None]
"""Called with each archive, and FOUND, PURGED, UNFINISHED or PINNED."""


class PurgeRun:
    """Purges the selected archives in turn or, without an *order*, only reports them."""

    def __init__(self, purger: Purger, *, order: PurgeOrder | None, report: Report) -> None:
        self._purger = purger
        self._order = order
        self._report = report
        self.tally = PurgeTally()

    async def run(self, selections: Sequence[Selection]) -> PurgeTally:
        """Raises EngineUnavailable."""
        seen: set[str] = set()
        async with aclosing(self._iter_selected(selections)) as archives:
            async for archive in archives:
                if archive.key not in seen:
                    seen.add(archive.key)
                    await self._handle(archive)
        return self.tally

    async def _iter_selected(
        self, selections: Sequence[Selection]
    ) -> AsyncGenerator[Archive, None]:
        for selection in selections:
            match selection:
                case Archive():
                    yield selection
                case RepoSelection(source=source, repo=repo, node=node):
                    listing = await self._purger.list_of(source, repo, node)
                    self.tally.silent.update(dict.fromkeys(listing.failures))
                    for archive in sorted(listing.archives, key=lambda each: each.key):
                        yield archive
                case str():
                    for archive in await self._purger.by_sha256(selection):
                        if selection in (await self._purger.traces(archive)).sha256s:
                            yield archive

    async def _handle(self, archive: Archive) -> None:
        traces, outcome = await self._purger.traces(archive), FOUND
        self.tally.silent.update(dict.fromkeys(traces.failures))
        if self._order:
            try:
                found, outcome = await self._purger.purge(archive, self._order), PURGED
                traces = found or traces
            except PurgeUnfinished:
                outcome = UNFINISHED
                self.tally.unfinished += 1
            except PinnedArchive:
                outcome = PINNED
                self.tally.pinned += 1
        if traces.regions or outcome == UNFINISHED:
            self.tally.archives += 1
            self.tally.total_bytes += traces.total_bytes
            self._report(traces, outcome)


@click.command("purge")
@click.argument("selections", metavar="SELECTION...", nargs=-1, required=True)
@click.option("--reason", help="Why, for the log. Required with --yes.")
@click.option("--yes", is_flag=True, help="Remove the archives instead of listing them.")
@click.option("--pinned", is_flag=True, help="Also purge archives that are pinned.")
@quiet_option
@json_option
@config_option
def command(
    *,
    selections: tuple[str, ...],
    reason: str | None,
    yes: bool,
    pinned: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Remove every trace of archives, or list what would be removed.

    A SELECTION is a task id or a status URL (one archive), SOURCE/REPO/NODE or SOURCE/REPO (all
    archives of a changeset, or of a repository), or the SHA-256 of archives. Without --yes,
    nothing is removed. The next request builds again what its host still has.

    \b
    Exit codes:
      0  removed; or, without --yes, listed
      1  there is no such archive, or one is pinned
      2  wrong usage
     75  the engine or a region did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    if yes and not is_reason(reason or ""):
        raise click.UsageError(f"--yes needs a --reason of {REASON_ALLOWED}")
    selected = [parse_selection(text) for text in selections]
    order = None
    if yes and reason:
        order = PurgeOrder(principal=PRINCIPAL, reason=reason, pinned=pinned)
    settings = load_settings_or_embedded(config, require=(require_outside_world,))
    set_up_command_log(settings, "purge", audited=True)
    report = _print_json if as_json else _print_line
    with retry_later(), interruptible():
        tally = asyncio.run(_run(settings, selected, order, report))
    if tally.archives and not quiet:
        click.echo(format_summary(tally, removed=yes), err=True)
    if tally.unfinished or tally.silent:
        silent = ", ".join(tally.silent) or "a region"
        raise RetryLater(f"{silent} did not respond, so traces may be left")
    if not tally.archives:
        raise CommandFailed(
            f"there is no such archive{why_absent(selected)}",
            hint="`archiver list` lists the archives.",
        )
    if tally.pinned:
        raise CommandFailed(
            f"{tally.pinned:,} pinned, and not purged",
            hint="--pinned purges them as well; `archiver pins` says why they are pinned.",
        )


def why_absent(selected: Sequence[Selection]) -> str:
    """Return why an existing archive may not be found: a short node is part of a repo's name."""
    for each in selected:
        last = each.repo.rpartition("/")[2] if isinstance(each, RepoSelection) else ""
        if _SHORT_NODE.fullmatch(last):
            return f": {last} counts as part of a repo's name, because a node is {NODE_ALLOWED}"
    return ""


async def _run(
    settings: Settings,
    selected: Sequence[Selection],
    order: PurgeOrder | None,
    report: Report,
) -> PurgeTally:
    async with open_purger(settings) as purger:
        return await PurgeRun(purger, order=order, report=report).run(selected)


def parse_selection(text: str) -> Selection:
    """Raises InvalidUsage."""
    if archive := find_archive(text):
        return archive
    if is_sha256(text.lower()):
        return text.lower()
    source, _, repo = text.partition("/")
    folder, slash, last = repo.rpartition("/")
    node = parse_node(last) if slash else None
    repo = folder if node else repo
    try:
        require_name(source, "source")
        require_name(repo, "repo")
    except InvalidRequest as exc:
        raise InvalidUsage(
            f"{text} is neither a task id, a status URL, SOURCE/REPO, SOURCE/REPO/NODE nor a "
            "SHA-256"
        ) from exc
    return RepoSelection(source=source, repo=repo, node=node)


def _print_line(traces: Traces, outcome: str) -> None:
    sums = ", ".join(f"sha256 {sha256}" for sha256 in traces.sha256s) or "no manifest"
    places = ", ".join(traces.regions) or "no region that responds"
    click.echo(printable(f"{outcome:<10}  {traces.archive.task_id}"))
    places += "; pinned" if traces.pin else ""
    click.echo(printable(f"{'':<12}{traces.total_bytes:,} bytes in {places}; {sums}"))


def _print_json(traces: Traces, outcome: str) -> None:
    click.echo(
        json.dumps(
            {
                "task": traces.archive.task_id,
                "outcome": outcome,
                "sha256": list(traces.sha256s),
                "total_bytes": traces.total_bytes,
                "regions": list(traces.regions),
                "pinned": traces.pin is not None,
                "silent": list(traces.failures),
            }
        )
    )


def format_summary(tally: PurgeTally, *, removed: bool) -> str:
    archives = "archive" if tally.archives == 1 else "archives"
    found = f"{tally.archives:,} {archives}, {tally.total_bytes:,} bytes in all regions"
    if not removed:
        return f"{found}; nothing was removed: --yes with a --reason removes them"
    purged = tally.archives - tally.unfinished - tally.pinned
    return f"{found}: {purged:,} purged, {tally.unfinished:,} unfinished, {tally.pinned:,} pinned"
