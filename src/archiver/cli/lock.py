"""``archiver lock``: lock archives to their bytes, in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from archiver.cli.failure_report import describe_failure
from archiver.cli.get import ShownEvents
from archiver.cli.lock_additions import Additions
from archiver.cli.lock_changes import Change, find_changes
from archiver.cli.lock_formats import FORMATS, left_out
from archiver.cli.options import jobs_option, json_option, only_option, quiet_option, servers_option
from archiver.cli.progress import byte_progress
from archiver.cli.signals import interruptible
from archiver.client.client import Client
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.lock_file import Entries, Entry, read_lock, require_places, write_lock
from archiver.client.text import printable
from archiver.client.together import Done, do_together

REMOVE_HELP = "Remove this archive from the file. Repeat it."


@click.command("lock")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("added", nargs=-1, metavar="[[NAME=]SOURCE/REPO@REV]...")
@click.option("--subdir", help="Of the added archives: only this directory.")
@click.option("--suffix", help="Their format.  [default: tar.gz]")
@click.option("--submodules/--no-submodules", default=None, help="With the files of submodules.")
@click.option("--lfs/--no-lfs", default=None, help="With the files of Git LFS.")
@click.option("--remove", "removed", multiple=True, metavar="NAME", help=REMOVE_HELP)
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
    subdir: str | None,
    suffix: str | None,
    submodules: bool | None,
    lfs: bool | None,
    removed: tuple[str, ...],
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
    An added archive that FILE has already keeps its subdir, suffix and flags, unless these are
    given.

    \b
    Exit codes:
      0  all are locked
      2  wrong usage
      3  not found       4  timed out       75  try again later
      1  with --check: FILE would change; or some failed in different ways, or in another one
    """  # noqa: D301 - click keeps the lines after \b
    if as_json and format_name:
        raise click.UsageError("--json and --format would both write to standard output")
    before = read_lock(file, may_be_new=bool(added))
    additions = Additions(before, subdir, suffix, submodules, lfs).parse(added)
    entries = {**_remove(before, removed, additions), **additions}
    require_places(file, entries)
    chosen = sorted({*choose(entries, only), *additions})
    unlocked = {n: entries[n] for n in chosen if upgrade or not entries[n].is_locked}
    failures: dict[str, CommandFailed] = {}
    with interruptible(), byte_progress(quiet=quiet) as progress:
        events = ShownEvents(progress, quiet=quiet)
        with Client(*servers, timeout_s=timeout_s, events=events) as client:
            for done in _lock(client, unlocked, jobs):
                if done.result:
                    entries[done.item] = done.result
                elif done.failure:
                    failures[done.item] = done.failure
                    entries = _restore(entries, done.item, before)
                    _report(done.item, done.failure, as_json=as_json)
    changes = [*find_changes(before, entries)]
    if changes and not check:
        write_lock(file, entries)
    if not quiet:
        _print_changes(changes, entries, failed=bool(failures))
    if as_json:
        click.echo(_summary(changes, entries))
    raise_failures(failures)
    if format_name:
        _print_format(format_name, servers[0], {name: entries[name] for name in chosen})
    if check and changes:
        raise CommandFailed(f"{file} would change", hint="Run the same command without --check.")


def choose(entries: Entries, only: Sequence[str]) -> list[str]:
    """Return the names in *only*, or all of them. Raises InvalidUsage for an unknown name."""
    for name in only:
        if name not in entries:
            raise InvalidUsage(f"the file has no archive {name}")
    return [name for name in sorted(entries) if not only or name in only]


def list_failures(failures: dict[str, CommandFailed]) -> None:
    for name, failure in sorted(failures.items()):
        click.echo(f"{printable(name)}: {failure.message}", err=True)


def raise_failures(failures: dict[str, CommandFailed]) -> None:
    """Report each failure, and raise one with the exit code that they have in common, or 1."""
    list_failures(failures)
    if failures:
        archives = "archive" if len(failures) == 1 else "archives"
        failure = CommandFailed(f"{len(failures)} {archives} failed")
        kinds = {each.exit_code: each for each in failures.values()}
        if len(kinds) == 1:
            (same,) = kinds.values()
            failure.exit_code, failure.code, failure.hint = same.exit_code, same.code, same.hint
        raise failure


def _remove(entries: Entries, names: Sequence[str], additions: Entries) -> Entries:
    """Return the other entries. Raises InvalidUsage."""
    choose(entries, names)
    if both := additions.keys() & names:
        raise InvalidUsage(f"{min(both)} is added and removed")
    return {name: entry for name, entry in entries.items() if name not in names}


def _lock(client: Client, entries: Entries, jobs: int) -> Iterator[Done[str, Entry]]:
    """Yield the name of each archive with its locked entry, or with the failure."""
    deadline = client.deadline()

    def lock(name: str) -> Entry:
        entry = entries[name]
        return entry.lock(client.locate(entry.named, deadline=deadline))

    return do_together(entries, lock, jobs=jobs, cancel=deadline.cancel)


def _restore(entries: Entries, name: str, before: Entries) -> dict[str, Entry]:
    """Return the entries with what the file had under this name, if it had something."""
    others = {other: entry for other, entry in entries.items() if other != name}
    return {**others, name: before[name]} if name in before else others


def _print_changes(changes: Sequence[Change], entries: Entries, *, failed: bool) -> None:
    for change in changes:
        click.echo(change.describe(), err=True)
    if not changes and not failed:
        archives = "archive" if len(entries) == 1 else "archives"
        click.echo(f"{len(entries)} {archives}, none changed", err=True)


def _print_format(format_name: str, server: str, entries: Entries) -> None:
    """Write the entries for another tool. Raises InvalidUsage."""
    for line in [*FORMATS[format_name](server, entries)]:
        click.echo(line)
    for name in left_out(format_name, entries):
        click.echo(f"{name} is left out, since it is extracted", err=True)


def _report(name: str, failure: CommandFailed, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"name": name, "error": describe_failure(failure)}))


def _summary(changes: Sequence[Change], entries: Entries) -> str:
    return json.dumps(
        {
            "archives": len(entries),
            "locked": sum(entry.is_locked for entry in entries.values()),
            "changes": [change.to_json() for change in changes],
        }
    )
