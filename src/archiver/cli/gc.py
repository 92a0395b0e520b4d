"""``archiver gc``: expire archives that the settings no longer keep."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import click

from archiver.cli.cancellation import cancelled_by_signals
from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.gc_report import format_result, summary_lines, to_json_line, to_json_summary
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import echo_result, open_reporter
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, RetryLater
from archiver.settings import Settings, require_outside_world
from archiver.upkeep.gc import GcTally, Result
from archiver.wiring.tools import open_gc


@click.command("gc")
@click.option("--apply", is_flag=True, help="Expire the archives, instead of only listing them.")
@quiet_option
@json_option
@config_option
def command(*, apply: bool, quiet: bool, as_json: bool, config: Path | None) -> None:
    """List or expire the archives that the retention settings no longer keep.

    An expired archive is built again when a client requests it. Without --apply, nothing changes.

    \b
    Exit codes:
      0  success
      1  a region exceeds a budget, since the other archives are kept, pinned or in use
      2  wrong usage
     75  a region or the engine did not respond, or another run is under way: run it again
    """  # noqa: D301 - click keeps the lines after \b
    settings = load_settings_or_embedded(config, require=(require_outside_world,))
    set_up_command_log(settings, "gc")
    if settings.retention.policy.keeps_everything and not quiet:
        click.echo("the settings keep all archives: see retention in the settings", err=True)
    started = time.monotonic()

    def report(result: Result) -> None:
        echo_result(to_json_line(result) if as_json else format_result(result))

    with retry_later(), interruptible():
        tally = asyncio.run(_collect(settings, report, apply=apply, quiet=quiet))
    if tally is None:
        raise RetryLater("another run is under way, or was killed in the last ten minutes")
    if as_json:
        click.echo(to_json_summary(tally, time.monotonic() - started, applied=apply))
    if not quiet:
        for line in summary_lines(tally, settings.expiry_grace, applied=apply):
            click.echo(line, err=True)
    if tally.unanswered:
        raise RetryLater(f"{tally.unanswered:,} archives are left, because a region did not answer")
    if tally.excesses:
        raise CommandFailed(
            "a region exceeds a budget", hint="Unpin or purge archives, or raise the budget."
        )


async def _collect(
    settings: Settings, report: Callable[[Result], None], *, apply: bool, quiet: bool
) -> GcTally | None:
    """Return the results of a run, or None if another one is under way."""
    with open_reporter(quiet=quiet) as show:

        def on_progress(tally: GcTally) -> None:
            show(tally.phase, tally.done, tally.total)

        with cancelled_by_signals():
            async with open_gc(settings, on_progress=on_progress) as tools:

                async def run() -> GcTally:
                    async with aclosing(tools.gc.run(apply=apply)) as results:
                        async for result in results:
                            report(result)
                    return tools.gc.tally

                return await (tools.exclusive.run_if_due(run) if apply else run())
