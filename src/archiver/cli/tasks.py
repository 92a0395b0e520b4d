"""``archiver tasks``: count and list the tasks of the fleet."""

import asyncio
import json
from pathlib import Path

import click
from rich.console import Console

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import open_reporter
from archiver.cli.signals import interruptible
from archiver.cli.tasks_report import format_task, tables
from archiver.settings import Settings, require_engine
from archiver.tasks import TaskState
from archiver.upkeep.census import STATES, Overview, Wanted
from archiver.upkeep.census_json import render_counts, render_task
from archiver.wiring.tools import open_census

LIMIT_MAX = 10_000


@click.command("tasks")
@click.option(
    "--state",
    type=click.Choice([*STATES], case_sensitive=False),
    help="List only tasks in this state.",
)
@click.option("--source", help="Only tasks of this source.")
@click.option(
    "--limit",
    type=click.IntRange(0, LIMIT_MAX),
    metavar="N",
    default=10,
    show_default=True,
    help="List up to N tasks in each state.",
)
@quiet_option
@json_option
@config_option
def command(
    *,
    state: str | None,
    source: str | None,
    limit: int,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Count the tasks that run, are retried, wait or have failed, and list some.

    Open tasks are listed the oldest first, failed ones the latest first.

    \b
    Exit codes:
      0  success
      2  wrong usage
     75  the engine did not respond
    """  # noqa: D301 - click keeps the lines after \b
    settings = load_settings_or_embedded(config, require=(require_engine,), source=source)
    set_up_command_log(settings, "tasks")
    wanted = Wanted(state=TaskState(state) if state else None, source=source, limit=limit)
    with retry_later(), interruptible():
        overview = asyncio.run(_take(settings, wanted, quiet=quiet))
    if as_json:
        for listed in overview.tasks:
            click.echo(json.dumps(render_task(listed)))
        click.echo(json.dumps(render_counts(overview)))
        return
    if not overview.counts:
        click.echo("no tasks")
    for table in tables(overview):
        Console(highlight=False, soft_wrap=True).print(table)
        click.echo()
    for listed in overview.tasks:
        click.echo(format_task(listed))


async def _take(settings: Settings, wanted: Wanted, *, quiet: bool) -> Overview:
    with open_reporter(quiet=quiet) as show:

        def on_progress(read: int) -> None:
            show("reading", read, None)

        async with open_census(settings, on_progress=on_progress) as census:
            return await census.take(wanted)
