"""``archiver fetch``: bring all archives of a lock file."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from archiver.cli.failure_report import describe_failure
from archiver.cli.get import ShownEvents
from archiver.cli.lock import choose, raise_failures
from archiver.cli.options import (
    cache_options,
    jobs_option,
    json_option,
    only_option,
    quiet_option,
    servers_option,
)
from archiver.cli.progress import ProgressBar, byte_progress
from archiver.cli.signals import exit_after, interruptible
from archiver.client.cache import Cache
from archiver.client.client import Client
from archiver.client.deadline import Deadline
from archiver.client.destination import Destination, find_destination
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.lock_file import LOCK_FILE, Entries, Entry, read_lock
from archiver.client.lock_values import require_apart
from archiver.client.together import Done, do_together

EXIT_MARGIN_S = 1.0
"""Time for a command past its timeout to end by itself."""


@click.command("fetch")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "-C",
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the archives go.  [default: the folder of FILE]",
)
@only_option
@click.option("--force", is_flag=True, help="Replace what fetch did not bring, too.")
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds for all.")
@quiet_option
@cache_options
@jobs_option
@json_option
@servers_option
def command(  # noqa: PLR0913 - one per option
    *,
    file: Path,
    directory: Path | None,
    only: tuple[str, ...],
    force: bool,
    timeout_s: float,
    quiet: bool,
    cache_folder: Path | None,
    cache_max_bytes: int,
    jobs: int,
    as_json: bool,
    servers: tuple[str, ...],
) -> None:
    """Bring all archives that FILE locks, and verify them.

    An archive that is there already is not downloaded again. A file or folder that another program
    made is not replaced, unless --force is given.

    \b
    Exit codes:
      0  all are there
      2  wrong usage, or one is not locked
      3  not found       4  timed out       5  wrong bytes       75  try again later
      1  some failed in different ways, or in another one
    """  # noqa: D301 - click keeps the lines after \b
    entries = read_lock(file)
    names = choose(entries, only)
    for name in names:
        if not entries[name].is_locked:
            raise InvalidUsage(f"{name} is not locked: run `archiver lock {file}`")
    folder = (directory or file.parent).absolute()
    _require_apart(file, folder, {name: entries[name] for name in names})
    cache = Cache(cache_folder, max_bytes=cache_max_bytes) if cache_folder else None
    fetched: dict[str, Fetched] = {}
    failures: dict[str, CommandFailed] = {}
    began = time.monotonic()
    with (
        interruptible(),
        byte_progress(quiet=quiet) as progress,
        exit_after(timeout_s + EXIT_MARGIN_S, f"not finished after {timeout_s:g} s"),
    ):
        events = TotalEvents(progress, sum(entries[name].size for name in names), quiet=quiet)
        with Client(*servers, timeout_s=timeout_s, cache=cache, events=events) as client:
            deadline = client.deadline()
            fetching = Fetching(client, events, deadline, folder, force)

            def fetch(name: str) -> Fetched:
                return fetching.fetch(name, entries[name])

            for done in do_together(names, fetch, jobs=jobs, cancel=deadline.cancel):
                if done.failure:
                    failures[done.item] = done.failure
                elif done.result:
                    fetched[done.item] = done.result
                if as_json:
                    click.echo(_to_json(entries[done.item], done))
    if not quiet:
        new = sum(each.downloaded for each in fetched.values())
        duration_s = time.monotonic() - began
        click.echo(
            f"{len(fetched)} of {len(names)} archives are there, {new} of them downloaded, "
            f"in {duration_s:.1f} s",
            err=True,
        )
    raise_failures(failures)


@dataclass(frozen=True)
class Fetched:
    """An archive that is there: at ``path``, as a file or extracted."""

    path: Path
    downloaded: bool


@dataclass(frozen=True)
class Fetching:
    """Brings one archive after the other below *folder*, in several threads."""

    client: Client
    events: TotalEvents
    deadline: Deadline
    folder: Path
    force: bool

    def fetch(self, name: str, entry: Entry) -> Fetched:
        """Return the archive, once it is there. Raises CommandFailed."""
        path = self.folder / entry.path(name)
        try:
            destination = find_destination(self.folder, name, entry)
            return Fetched(path=path, downloaded=self._bring(destination))
        except OSError as exc:
            raise CommandFailed(f"{exc.filename or path}: {exc.strerror}") from exc

    def _bring(self, destination: Destination) -> bool:
        """Return whether the archive was downloaded."""
        entry = destination.entry
        if destination.is_complete():
            self.events.advance(entry.size)
            return False
        with destination.replacing(force=self.force, deadline=self.deadline) as necessary:
            if not necessary:
                self.events.advance(entry.size)
                return False
            got = self.client.get(
                entry.locked,
                None if entry.extract else str(destination.path),
                unpacking=destination.unpacking(),
                deadline=self.deadline,
            )
        return got.downloaded


class TotalEvents:
    """Implements ``client.events.Events``, and adds up the bytes of all archives in one bar."""

    def __init__(self, progress: ProgressBar, total: int, *, quiet: bool) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        shown = ShownEvents(progress, quiet=quiet)
        self.notice, self.kept = shown.notice, shown.kept
        progress.update("fetching", 0, total)

    def update(self, phase: str, done: int, total: int | None = None) -> None: ...

    def advance(self, size_bytes: int) -> None:
        with self._lock:
            self._progress.advance(size_bytes)


def _require_apart(file: Path, folder: Path, entries: Entries) -> None:
    """Raise InvalidUsage if links lead two archives, or the lock *file*, to the same place."""
    places = {LOCK_FILE: os.path.realpath(file)}
    for name, entry in entries.items():
        with suppress(CommandFailed):  # which is the failure of this archive alone
            places[name] = str(find_destination(folder, name, entry).path)
    require_apart(places, str(file))


def _to_json(entry: Entry, done: Done[str, Fetched]) -> str:
    document: dict[str, object] = {"name": done.item, "node": entry.node, "sha256": entry.sha256}
    if done.failure:
        document["error"] = describe_failure(done.failure)
    elif done.result:
        document.update(path=str(done.result.path), downloaded=done.result.downloaded)
    return json.dumps(document)
