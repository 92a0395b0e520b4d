"""``archiver index``: what the fleet knows by heart of its regions."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from archiver.cli.failures import Misused, RetryLater
from archiver.cli.options import config_option, json_option, settings_beside
from archiver.cli.progress import counting
from archiver.cli.signals import interruptible
from archiver.errors import ArchiverError
from archiver.settings import Settings, require_outside_world
from archiver.telemetry import set_up_logging
from archiver.upkeep.rebuild import Tally
from archiver.wiring import open_rebuilder

LINE_EVERY_S = 10.0


@click.group("index")
def command() -> None:
    """Look after the index of archives and digests, which the engine keeps."""


@command.command("rebuild")
@click.option("--source", help="Only archives of this source.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@json_option
@config_option
def rebuild(*, source: str | None, quiet: bool, as_json: bool, config: Path | None) -> None:
    """Make the index anew, by the manifests in all regions.

    May be run at any time and any number of times, beside a fleet at work. Entries of archives that
    no region has are dropped, if all regions answer.

    \b
    Exit codes:
      0  done
      2  wrong usage
     75  the engine or a region did not answer: run it again
    """  # noqa: D301 - \b is click's: keep these lines
    settings = settings_beside(config, require=(require_outside_world,))
    if source and source not in settings.sources:
        raise Misused(f"there is no source {source} in the settings")
    set_up_logging(settings.log.format, level=settings.log.level, process="index")
    started = time.monotonic()
    try:
        with interruptible():
            tally = asyncio.run(_rebuild(settings, source, quiet=quiet))
    except ArchiverError as exc:
        raise RetryLater(f"{exc.code}: {exc.message}") from exc
    duration_s = time.monotonic() - started
    if as_json:
        click.echo(as_line(tally, duration_s))
    if not quiet:
        click.echo(f"{summary(tally)}, in {duration_s:.1f} s", err=True)
    if not tally.complete:
        raise RetryLater(_lacking(tally))


async def _rebuild(settings: Settings, source: str | None, *, quiet: bool) -> Tally:
    with _teller(quiet=quiet) as tell:
        async with open_rebuilder(settings, on_progress=tell) as rebuilder:
            return await rebuilder.rebuild(source)


@contextmanager
def _teller(*, quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Yield what shows a tally: as a bar on a terminal, else as a line from time to time."""
    if quiet:
        yield lambda _tally: None
    elif Console(stderr=True).is_terminal:
        with counting() as bar:
            yield lambda tally: bar.show(tally.phase, *_position(tally))
    else:
        yield Lines(every_s=LINE_EVERY_S).tell


class Lines:
    """Writes a line to standard error when the last one is old enough."""

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    def tell(self, tally: Tally) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._every_s
            done, total = _position(tally)
            click.echo(f"{tally.phase}: {done:,}{f' of {total:,}' if total else ''}", err=True)


def _position(tally: Tally) -> tuple[int, int | None]:
    match tally.phase:
        case "listing":
            return tally.listed, None
        case "reading":
            return tally.read, tally.listed
        case _:
            return tally.dropped, None


def summary(tally: Tally) -> str:
    archives = "archive" if tally.listed == 1 else "archives"
    counts = f"{tally.written:,} written, {tally.kept:,} kept, {tally.dropped:,} dropped"
    return f"{tally.listed:,} {archives}: {counts}"


def as_line(tally: Tally, duration_s: float) -> str:
    """Return the outcome as JSON in one line."""
    told = {name: value for name, value in asdict(tally).items() if name not in {"phase", "read"}}
    return json.dumps({**told, "complete": tally.complete, "duration_s": round(duration_s, 3)})


def _lacking(tally: Tally) -> str:
    if tally.silent:
        return f"{', '.join(tally.silent)} did not list the archives there; nothing was dropped"
    return f"not every region answered about {tally.unread:,} of them"
