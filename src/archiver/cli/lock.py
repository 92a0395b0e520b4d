"""``archiver lock``: lock archives to their bytes, in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from archiver.cli.get import ShownEvents
from archiver.cli.lock_formats import FORMATS
from archiver.cli.options import jobs_option, json_option, only_option, quiet_option, servers_option
from archiver.cli.progress import byte_progress
from archiver.cli.signals import interruptible
from archiver.client.client import Client
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.lock_file import (
    Entries,
    Entry,
    read_lock,
    require_name,
    require_places,
    write_lock,
)
from archiver.client.lock_values import find_problem
from archiver.client.text import printable
from archiver.client.together import do_together

_ADDED = re.compile(r"(?:(?P<name>[^=/@]+)=)?(?P<source>[^=/@]+)/(?P<repo>.+)@(?P<rev>[^@]+)")
NODE_DIGITS = 12


@click.command("lock")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("added", nargs=-1, metavar="[[NAME=]SOURCE/REPO@REV]...")
@click.option("--subdir", default="", help="Of the added archives: only this directory.")
@click.option("--suffix", default="tar.gz", show_default=True, help="Their format.")
@click.option("--upgrade", is_flag=True, help="Resolve all revs again.")
@only_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the file would change.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice([*FORMATS]),
    help="Write the locked archives to standard output, for another tool.",
)
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds.")
@quiet_option
@jobs_option
@json_option
@servers_option
def command(  # noqa: PLR0913 - one per option
    *,
    file: Path,
    added: tuple[str, ...],
    subdir: str,
    suffix: str,
    upgrade: bool,
    only: tuple[str, ...],
    check: bool,
    format_name: str | None,
    timeout_s: float,
    quiet: bool,
    jobs: int,
    as_json: bool,
    servers: tuple[str, ...],
) -> None:
    """Lock archives in FILE: the commit that each rev means now, and the SHA-256 of its archive.

    FILE lists archives by their names; it is created if it does not exist. An archive that is not
    locked yet is built if necessary. The locked ones stay as they are, unless --upgrade is given.

    \b
    Exit codes:
      0  all are locked
      1  one could not be locked; with --check: FILE would change
      2  wrong usage
     75  try again later
    """  # noqa: D301 - click keeps the lines after \b
    if as_json and format_name:
        raise click.UsageError("--json and --format would both write to standard output")
    before = read_lock(file)
    entries = {**before, **dict(_parse_added(added, subdir, suffix, before))}
    require_places(file, entries)
    chosen = choose(entries, only)
    open_names = [n for n in chosen if upgrade or not entries[n].is_locked]
    failures: dict[str, CommandFailed] = {}
    with interruptible(), byte_progress(quiet=quiet) as progress:
        events = ShownEvents(progress, quiet=quiet)
        with Client(*servers, timeout_s=timeout_s, events=events) as client:
            deadline = client.deadline()

            def lock(name: str) -> Entry:
                entry = entries[name]
                return entry.lock(client.locate(entry.named, deadline=deadline))

            for done in do_together(open_names, lock, jobs=jobs, cancel=deadline.cancel):
                if done.failure:
                    failures[done.item] = done.failure
                elif done.result:
                    entries[done.item] = done.result
    changes = list(diff(before, entries))
    if changes and not check:
        write_lock(file, entries)
    _print(changes, entries, format_name, servers[0], as_json=as_json, quiet=quiet)
    raise_failures(failures)
    if check and changes:
        raise CommandFailed(f"{file} would change")


def choose(entries: Entries, only: Sequence[str]) -> list[str]:
    """Return the names in *only*, or all of them. Raises InvalidUsage for an unknown name."""
    for name in only:
        if name not in entries:
            raise InvalidUsage(f"the file has no archive {name}")
    return [name for name in sorted(entries) if not only or name in only]


def raise_failures(failures: dict[str, CommandFailed]) -> None:
    """Report each failure, and raise one with the exit code that they have in common, or 1."""
    for name, failure in sorted(failures.items()):
        click.echo(f"{printable(name)}: {failure.message}", err=True)
    if failures:
        archives = "archive" if len(failures) == 1 else "archives"
        failure = CommandFailed(f"{len(failures)} {archives} failed")
        kinds = {each.exit_code: each for each in failures.values()}
        if len(kinds) == 1:
            (same,) = kinds.values()
            failure.exit_code, failure.code, failure.hint = same.exit_code, same.code, same.hint
        raise failure


def diff(before: Entries, after: Entries) -> Iterator[str]:
    """Yield a line for each archive that is new or has changed."""
    for name in sorted(after):
        old, new = before.get(name), after[name]
        if old == new:
            continue
        what = f"{new.source}/{new.repo}@{new.rev}{f':{new.subdir}' if new.subdir else ''}"
        if old is None or not old.is_locked or not new.is_locked:
            sign, change = "+" if old is None else "~", _short(new)
        elif old.node == new.node:
            sign, change = "!", f"{_short(old)} has other bytes now: sha256 {new.sha256}"
        else:
            sign, change = "~", f"{_short(old)} -> {_short(new)}"
        yield printable(f"{sign} {name}  {what}  {change}")


def _short(entry: Entry) -> str:
    return entry.node[:NODE_DIGITS] or "not locked"


def _parse_added(
    added: Sequence[str], subdir: str, suffix: str, entries: Entries
) -> Iterator[tuple[str, Entry]]:
    for text in added:
        match = _ADDED.fullmatch(text)
        if match is None:
            raise InvalidUsage(f"{text} is not [NAME=]SOURCE/REPO@REV")
        repo = match["repo"].strip("/")
        name = require_name(match["name"] or repo.rpartition("/")[2])
        entry = Entry(match["source"], repo, match["rev"], subdir, suffix)
        for key, value in asdict(entry).items():
            if problem := find_problem(key, value):
                raise InvalidUsage(f"{text}: {key} {problem}")
        old = entries.get(name)
        if old and (old.source, old.repo) != (entry.source, entry.repo) and not match["name"]:
            raise InvalidUsage(f"{name} is of another repo in this file; use NAME={text}")
        kept = replace(entry, file=old.file, extract=old.extract, strip=old.strip) if old else entry
        yield name, old if old and old.named == entry.named else kept


def _print(
    changes: Sequence[str],
    entries: Entries,
    format_name: str | None,
    server: str,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    if not quiet:
        for line in changes:
            click.echo(line, err=True)
    locked = {name: entries[name] for name in sorted(entries) if entries[name].is_locked}
    if format_name:
        for line in [*FORMATS[format_name](server, locked)]:
            click.echo(line)
    if as_json:
        document = {"archives": len(entries), "locked": len(locked), "changes": [*changes]}
        click.echo(json.dumps(document))
