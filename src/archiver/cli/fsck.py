"""``archiver fsck``: compare manifests, objects and the index, and repair them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import click

from archiver.cli.command_settings import (
    load_settings_or_embedded,
    set_up_command_log,
    unknown_name,
)
from archiver.cli.exit_codes import retry_later
from archiver.cli.fsck_report import format_summary, print_defect, to_json_line, to_json_summary
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import echo_result, open_reporter
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, RetryLater
from archiver.model import Region
from archiver.settings import Settings, require_outside_world
from archiver.upkeep.defect import Defect
from archiver.upkeep.fsck import Scope, Tally
from archiver.wiring.tools import open_fsck

REPAIR = "--repair repairs what needs no decision."
DECIDE = "The rest needs a decision: see docs/how-to/check-buckets.md."


@click.command("fsck")
@click.option("--source", help="Only archives of this source.")
@click.option("--region", help="Only defects of this region, and none of the index.")
@click.option("--read", is_flag=True, help="Read the bytes of all copies, and check their SHA-256.")
@click.option("--repair", is_flag=True, help="Repair what can be repaired without a decision.")
@quiet_option
@json_option
@config_option
def command(
    *,
    source: str | None,
    region: str | None,
    read: bool,
    repair: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Compare the manifests, the objects and the index of all regions.

    Without --repair, it changes nothing. With it, missing copies are left to the workers; objects
    and unfinished uploads that no build can still use are removed; the index is corrected.

    \b
    Exit codes:
      0  no defects, or all were repaired
      1  defects remain
      2  wrong usage
     75  a region or the engine did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    settings = load_settings_or_embedded(config, require=(require_outside_world,), source=source)
    if region and region not in settings.regions:
        raise unknown_name("region", region, settings.regions)
    set_up_command_log(settings, "fsck")
    scope = Scope(
        source=source, region=Region(region) if region else None, read=read, repair=repair
    )
    started = time.monotonic()

    def report(defect: Defect) -> None:
        if as_json:
            echo_result(to_json_line(defect))
        else:
            print_defect(defect)

    with retry_later(), interruptible():
        tally = asyncio.run(_check(settings, scope, report, quiet=quiet))
    duration_s = time.monotonic() - started
    if as_json:
        click.echo(to_json_summary(tally, duration_s))
    if not quiet:
        click.echo(f"{format_summary(tally)}, in {duration_s:.1f} s", err=True)
    if tally.remaining:
        defects = "defect remains" if tally.remaining == 1 else "defects remain"
        raise CommandFailed(f"{tally.remaining:,} {defects}", hint=REPAIR if not repair else DECIDE)
    if tally.unanswered:
        raise RetryLater(f"a region did not answer for {tally.unanswered:,} archives")


async def _check(
    settings: Settings, scope: Scope, report: Callable[[Defect], None], *, quiet: bool
) -> Tally:
    with open_reporter(quiet=quiet) as show:

        def on_progress(tally: Tally) -> None:
            show(tally.phase, tally.done, tally.total)

        async with (
            open_fsck(settings, on_progress=on_progress) as fsck,
            aclosing(fsck.run(scope)) as defects,
        ):
            async for defect in defects:
                report(defect)
            return fsck.tally
