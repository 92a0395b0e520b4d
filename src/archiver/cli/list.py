"""``archiver list``: list the stored archives."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.list_report import Totals, format_entry, format_summary, to_json_line
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import echo_result, open_reporter
from archiver.cli.signals import interruptible
from archiver.model import SUFFIXES
from archiver.settings import Settings, require_outside_world, require_regions
from archiver.upkeep.catalogue import Entry, Selection
from archiver.wiring.tools import open_catalogue

DAYS_MAX = 36_500

SORTS: dict[str, Callable[[Entry], tuple[float, str]]] = {
    "size": lambda entry: (-entry.manifest.size_bytes, entry.archive.key),
    "age": lambda entry: (entry.manifest.created_at.timestamp(), entry.archive.key),
    "use": lambda entry: (entry.last_use.toordinal() if entry.last_use else 0, entry.archive.key),
}
"""The largest, the oldest or the least recently used first."""


@click.command("list")
@click.option("--source", help="Only archives of this source.")
@click.option(
    "--repo", metavar="PATTERN", default="*", help="Only of these repos; * includes slashes."
)
@click.option("--suffix", type=click.Choice(SUFFIXES), help="Only archives of this format.")
@click.option(
    "--older",
    type=click.FloatRange(0, DAYS_MAX),
    metavar="DAYS",
    default=0.0,
    help="Only archives that were stored so many days ago or earlier.",
)
@click.option(
    "--min-bytes", type=click.IntRange(0), default=0, help="Only archives of this size or larger."
)
@click.option("--uses", is_flag=True, help="Show the day of the last use, which the engine knows.")
@click.option(
    "--unused",
    type=click.FloatRange(0, DAYS_MAX),
    metavar="DAYS",
    help="Only archives that were not used for so many days. Implies --uses.",
)
@click.option("--totals", is_flag=True, help="Print totals of sources and repos instead.")
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    help="The largest, the oldest or the least recently used first. Needs memory.",
)
@quiet_option
@json_option
@config_option
def command(  # noqa: PLR0913 - one per option
    *,
    source: str | None,
    repo: str,
    suffix: str | None,
    older: float,
    min_bytes: int,
    uses: bool,
    unused: float | None,
    totals: bool,
    sort: str | None,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """List the stored archives.

    Reads the manifests of the first region that responds. The last use is the day on which the
    archive was created, or on which the engine began to record uses, if no use was recorded later.

    \b
    Exit codes:
      0  success
      2  wrong usage
     75  no region responded, or one failed midway; or the engine, for --uses
    """  # noqa: D301 - click keeps the lines after \b
    selection = Selection(
        source=source,
        repo=repo,
        suffix=suffix,
        older=timedelta(days=older),
        min_bytes=min_bytes,
        unused=None if unused is None else timedelta(days=unused),
    )
    with_uses = uses or unused is not None or sort == "use"
    require = require_outside_world if with_uses else require_regions
    settings = load_settings_or_embedded(config, require=(require,), source=source)
    set_up_command_log(settings, "list")
    counted = Totals()
    held: list[Entry] = []

    def show(entry: Entry) -> None:
        echo_result(to_json_line(entry) if as_json else format_entry(entry))

    def take(entry: Entry) -> None:
        counted.add(entry)
        if sort and not totals:
            held.append(entry)
        elif not totals:
            show(entry)

    with retry_later(), interruptible():
        unreadable = asyncio.run(_list(settings, selection, take, with_uses=with_uses, quiet=quiet))
    for entry in sorted(held, key=SORTS[sort]) if sort else ():
        show(entry)
    if totals:
        for line in counted.json_lines() if as_json else counted.lines():
            click.echo(line)
    if not quiet:
        click.echo(format_summary(counted.everything, unreadable), err=True)


async def _list(
    settings: Settings,
    selection: Selection,
    take: Callable[[Entry], None],
    *,
    with_uses: bool,
    quiet: bool,
) -> int:
    """Call *take* with each archive; return how many manifests cannot be read."""
    with open_reporter(quiet=quiet) as show:

        def on_progress(read: int) -> None:
            show("reading", read, None)

        async with (
            open_catalogue(settings, with_uses=with_uses, on_progress=on_progress) as catalogue,
            aclosing(catalogue.entries(selection)) as entries,
        ):
            async for entry in entries:
                take(entry)
            return catalogue.unreadable
