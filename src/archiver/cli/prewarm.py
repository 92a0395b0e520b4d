"""``archiver prewarm``: have archives built before clients request them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import click

from archiver.cli.failure_report import describe_failure
from archiver.cli.get import ShownEvents
from archiver.cli.lock import list_failures, raise_failures
from archiver.cli.options import json_option, quiet_option, servers_option
from archiver.cli.progress import echo_result, item_progress
from archiver.cli.signals import interruptible
from archiver.client.archive_request import ArchiveRequest
from archiver.client.client import Client
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.lock_file import VERSION, read_lock
from archiver.client.lock_values import find_problem
from archiver.client.prewarm import Prewarmed

LINES_MAX_BYTES = 16 * 1024**2

KEYS = ("source", "repo", "rev", "subdir", "suffix", "submodules", "lfs")
"""Of a line in JSON. In the lines of `archiver list --json`, ``node`` stands for ``rev``."""


@click.command("prewarm")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--subdir", default="", help="Of lines without one: only this directory.")
@click.option("--suffix", default="tar.gz", show_default=True, help="Their format.")
@click.option("--submodules", is_flag=True, help="With the files of submodules.")
@click.option("--lfs", is_flag=True, help="With the files of Git LFS.")
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds.")
@quiet_option
@json_option
@servers_option
def command(  # noqa: PLR0913 - one per option
    *,
    file: Path,
    subdir: str,
    suffix: str,
    submodules: bool,
    lfs: bool,
    timeout_s: float,
    quiet: bool,
    as_json: bool,
    servers: tuple[str, ...],
) -> None:
    """Have the archives in FILE built, before clients request them.

    FILE is a lock file, or has a line for each archive: SOURCE/REPO@REV, or a JSON object such as
    those of `archiver list --json`. A dash reads lines from standard input. The tasks have no
    urgency: they wait while their source has others. The command does not wait for them. If it ends
    early, it says what it has done, and the same command does the rest.

    \b
    Exit codes:
      0  all are stored, or have a task
      2  wrong usage
      3  not found       4  timed out       75  try again later
    130  interrupted (Ctrl-C)
      1  some were refused in different ways, or in another one
    """  # noqa: D301 - click keeps the lines after \b
    plain = ArchiveRequest("", "", "", subdir, suffix, submodules=submodules, lfs=lfs)
    requests = [*_read(file, plain)]
    if not requests:
        raise InvalidUsage(f"{_shown(file)} names no archive")
    outcomes: Counter[str] = Counter()
    failures: dict[str, CommandFailed] = {}
    with interruptible():
        try:
            with closing(_send(requests, servers, timeout_s, quiet=quiet)) as results:
                for result in results:
                    outcomes[result.outcome] += 1
                    if result.failure:
                        failures[_name(result.request)] = result.failure
                    if as_json:
                        echo_result(json.dumps(_to_json(result)))
        except (CommandFailed, SystemExit):
            _print_summary(len(requests), outcomes, quiet=quiet)
            list_failures(failures)
            raise
    _print_summary(len(requests), outcomes, quiet=quiet)
    raise_failures(failures)


def _send(
    requests: Sequence[ArchiveRequest], servers: Sequence[str], timeout_s: float, *, quiet: bool
) -> Generator[Prewarmed, None, None]:
    with item_progress("sending", quiet=quiet) as progress:
        events = ShownEvents(progress, quiet=quiet)
        with Client(*servers, timeout_s=timeout_s, events=events) as client:
            yield from client.prewarm(requests)


def _print_summary(requests: int, outcomes: Counter[str], *, quiet: bool) -> None:
    if quiet:
        return
    results = [
        f"{outcomes['hit']} stored",
        f"{_counted(outcomes['created'], 'task')} created",
        f"{outcomes['joined']} joined",
        f"{outcomes['problem']} refused",
    ]
    if left := requests - sum(outcomes.values()):
        results.append(f"{left} without a result")
    click.echo(f"{_counted(requests, 'archive')}: {', '.join(results)}", err=True)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _read(file: Path, plain: ArchiveRequest) -> Iterator[ArchiveRequest]:
    """Yield the archives that FILE names. Raises InvalidUsage."""
    text = _read_text(file)
    if str(file) != "-" and _is_lock_file(text):
        for entry in read_lock(file).values():
            yield replace(entry.named, rev=entry.node) if entry.is_locked else entry.named
        return
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield _parse(stripped, plain, f"{_shown(file)}, line {number}")


def _read_text(file: Path) -> str:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(LINES_MAX_BYTES + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(LINES_MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise InvalidUsage(f"{file} does not exist") from exc
    if len(content) > LINES_MAX_BYTES:
        raise InvalidUsage(f"{_shown(file)} has more than {LINES_MAX_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise InvalidUsage(f"{_shown(file)} is not UTF-8") from exc


def _is_lock_file(text: str) -> bool:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("version") == VERSION


def _parse(line: str, plain: ArchiveRequest, where: str) -> ArchiveRequest:
    request = _parse_json(line, plain, where) if line.startswith("{") else _parse_name(line, plain)
    if request is None:
        raise InvalidUsage(f"{where}: not SOURCE/REPO@REV, and no JSON object with these names")
    for key in KEYS:
        if problem := find_problem(key, getattr(request, key)):
            raise InvalidUsage(f"{where}: {key} {problem}")
    return request


def _parse_name(line: str, plain: ArchiveRequest) -> ArchiveRequest | None:
    source, _, rest = line.partition("/")
    repo, _, rev = rest.rpartition("@")
    repo = repo.strip("/")
    named = source and repo and rev and "@" not in source
    return replace(plain, source=source, repo=repo, rev=rev) if named else None


def _parse_json(line: str, plain: ArchiveRequest, where: str) -> ArchiveRequest | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise InvalidUsage(f"{where} is not JSON") from exc
    if not isinstance(document, dict):
        return None
    members = {"rev": document.get("node"), **document}
    values = {key: members[key] for key in KEYS if members.get(key) is not None}
    return replace(plain, **values) if {"source", "repo", "rev"} <= values.keys() else None


def _to_json(result: Prewarmed) -> Mapping[str, object]:
    request = asdict(result.request)
    return {
        **{key: request[key] for key in KEYS},
        "outcome": result.outcome,
        "task": result.task or None,
        "error": describe_failure(result.failure) if result.failure else None,
    }


def _name(request: ArchiveRequest) -> str:
    flags = [flag for flag in ("submodules", "lfs") if getattr(request, flag)]
    parts = [request.subdir, request.suffix if request.suffix != "tar.gz" else "", *flags]
    more = ", ".join(filter(None, parts))
    return f"{request.source}/{request.repo}@{request.rev}" + (f" ({more})" if more else "")


def _shown(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)
