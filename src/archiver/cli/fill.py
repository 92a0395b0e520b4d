"""``archiver fill``: have the fleet copy to a region what only other regions have."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import click

from archiver.cli.command_settings import (
    load_settings_or_embedded,
    set_up_command_log,
    unknown_name,
)
from archiver.cli.exit_codes import retry_later
from archiver.cli.fill_report import (
    format_filled,
    format_summary,
    to_json_line,
    to_json_summary,
)
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import echo_result, open_reporter
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, RetryLater
from archiver.model import Region
from archiver.settings import Settings, require_outside_world
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.fill import Scope
from archiver.upkeep.filled import Filled, Tally
from archiver.wiring.tools import open_filler


@click.command("fill")
@click.argument("region")
@click.option("--source", help="Only archives of this source.")
@click.option(
    "--repo", metavar="PATTERN", default="*", help="Only of these repos; * includes slashes."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="At most so many archives a minute.",
)
@click.option("--dry-run", is_flag=True, help="Only list the archives that the region lacks.")
@quiet_option
@json_option
@config_option
def command(
    *,
    region: str,
    source: str | None,
    repo: str,
    rate: float | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Fill a new or emptied REGION with the archives of the other regions.

    The workers copy them, after the tasks of clients. If the command ends early, run it again: it
    continues with what the region still lacks.

    \b
    Exit codes:
      0  the region has all of them; with --dry-run: listed
      1  some archives cannot be copied
      2  wrong usage
     75  a region or the engine did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    settings = load_settings_or_embedded(config, require=(require_outside_world,), source=source)
    if region not in settings.regions:
        raise unknown_name("region", region, settings.regions)
    set_up_command_log(settings, "fill")
    scope = Scope(
        region=Region(region),
        selection=Selection(source=source, repo=repo),
        per_minute=rate or 0.0,
        dry_run=dry_run,
    )
    started = time.monotonic()

    def on_filled(filled: Filled) -> None:
        echo_result(to_json_line(filled) if as_json else format_filled(filled))

    with retry_later(), interruptible():
        tally = asyncio.run(_fill(settings, scope, on_filled, quiet=quiet))
    duration_s = time.monotonic() - started
    if as_json:
        click.echo(to_json_summary(tally, duration_s))
    if not quiet:
        click.echo(f"{format_summary(tally)}, in {duration_s:.1f} s", err=True)
    if tally.failed:
        archives = "archive" if tally.failed == 1 else "archives"
        raise CommandFailed(
            f"{tally.failed:,} {archives} cannot be copied",
            hint="See the outcome of each, and `archiver fsck --region` with this region.",
        )
    if tally.unanswered:
        raise RetryLater(f"a region did not answer for {tally.unanswered:,} archives")


async def _fill(
    settings: Settings, scope: Scope, on_filled: Callable[[Filled], None], *, quiet: bool
) -> Tally:
    with open_reporter(quiet=quiet) as show:

        def on_progress(tally: Tally) -> None:
            copied = (
                f", {tally.copied:,} copied, {tally.size_bytes:,} bytes" if tally.copied else ""
            )
            show(f"{tally.phase}{copied}", tally.done, tally.total)

        async with open_filler(settings, on_filled=on_filled, on_progress=on_progress) as filler:
            await filler.run(scope)
            return filler.tally
