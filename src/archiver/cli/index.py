"""``archiver index``: maintain the index of stored archives, which the engine holds."""

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import open_reporter
from archiver.cli.signals import interruptible
from archiver.client.failures import RetryLater
from archiver.settings import Settings, require_outside_world
from archiver.upkeep.rebuild import Tally
from archiver.wiring.tools import open_rebuilder


@click.group("index")
def command() -> None:
    """Maintain the index of archives, which the engine holds."""


@command.command("rebuild")
@click.option("--source", help="Only archives of this source.")
@quiet_option
@json_option
@config_option
def rebuild(*, source: str | None, quiet: bool, as_json: bool, config: Path | None) -> None:
    """Rebuild the index from the manifests in all regions.

    Safe to run at any time, also while the fleet works, and to repeat. Entries of archives that no
    region has are dropped, if all regions respond.

    \b
    Exit codes:
      0  success
      2  wrong usage
     75  the engine or a region did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    settings = load_settings_or_embedded(config, require=(require_outside_world,), source=source)
    set_up_command_log(settings, "index")
    started = time.monotonic()
    with retry_later(), interruptible():
        tally = asyncio.run(_rebuild(settings, source, quiet=quiet))
    duration_s = time.monotonic() - started
    if as_json:
        click.echo(to_json_line(tally, duration_s))
    if not quiet:
        click.echo(f"{format_summary(tally)}, in {duration_s:.1f} s", err=True)
    if not tally.complete:
        raise RetryLater(_describe_incomplete(tally))


async def _rebuild(settings: Settings, source: str | None, *, quiet: bool) -> Tally:
    with open_reporter(quiet=quiet) as report:

        def on_progress(tally: Tally) -> None:
            report(tally.phase, *_position(tally))

        async with open_rebuilder(settings, on_progress=on_progress) as rebuilder:
            return await rebuilder.rebuild(source)


def _position(tally: Tally) -> tuple[int, int | None]:
    match tally.phase:
        case "listing":
            return tally.listed, None
        case "reading":
            return tally.read, tally.listed
        case _:
            return tally.dropped, None


def format_summary(tally: Tally) -> str:
    archives = "archive" if tally.listed == 1 else "archives"
    counts = f"{tally.written:,} written, {tally.kept:,} kept, {tally.dropped:,} dropped"
    return f"{tally.listed:,} {archives}: {counts}"


def to_json_line(tally: Tally, duration_s: float) -> str:
    counts = {name: value for name, value in asdict(tally).items() if name not in {"phase", "read"}}
    return json.dumps({**counts, "complete": tally.complete, "duration_s": round(duration_s, 3)})


def _describe_incomplete(tally: Tally) -> str:
    if tally.silent:
        return f"{', '.join(tally.silent)} did not list their archives, so nothing was dropped"
    return f"not every region responded about {tally.unread:,} of the archives"
