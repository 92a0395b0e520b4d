"""``archiver pins``: list, add and remove the pins that protect archives from a purge."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option
from archiver.cli.signals import interruptible
from archiver.cli.task_argument import parse_task
from archiver.client.failures import CommandFailed, RetryLater
from archiver.client.text import printable
from archiver.model import Archive, Pin, Region
from archiver.pins import Pins
from archiver.purge import REASON_ALLOWED, is_reason
from archiver.settings import Settings, require_regions
from archiver.telemetry import set_up_logging
from archiver.wiring.tools import open_pins

PRINCIPAL = "cli"

Report = Callable[[Archive, Pin], None]


@click.group("pins", invoke_without_command=True)
@json_option
@config_option
@click.pass_context
def command(context: click.Context, *, as_json: bool, config: Path | None) -> None:
    """List the pinned archives, or pin and unpin archives.

    A pinned archive is purged only with `archiver purge --pinned`.
    """
    if context.invoked_subcommand:
        return
    settings = _load(config)
    with retry_later(), interruptible():
        silent = asyncio.run(_list(settings, _print_json if as_json else _print_line))
    if silent:
        raise RetryLater(f"{', '.join(silent)} did not list its pins: try again later")


@command.command("add")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why, for the log and the list.")
@config_option
def add(*, tasks: tuple[str, ...], reason: str, config: Path | None) -> None:
    """Pin archives, each named by its task id or its status URL. An earlier pin stays.

    \b
    Exit codes:
      0  pinned
      1  there is no such archive
      2  wrong usage
     75  a region did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    if not is_reason(reason):
        raise click.UsageError(f"--reason takes {REASON_ALLOWED}")
    _for_each(config, tasks, lambda pins, each: pins.pin(each, principal=PRINCIPAL, reason=reason))


@command.command("remove")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@config_option
def remove(*, tasks: tuple[str, ...], config: Path | None) -> None:
    """Unpin archives, each named by its task id or its status URL.

    \b
    Exit codes:
      0  unpinned
      1  there is no such pin
      2  wrong usage
     75  a region did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    _for_each(config, tasks, lambda pins, each: pins.unpin(each, principal=PRINCIPAL))


def _load(config: Path | None) -> Settings:
    settings = load_settings_or_embedded(config, require=(require_regions,))
    set_up_logging(settings.log.format, level=settings.log.level, process="pins")
    return settings


def _for_each(
    config: Path | None, tasks: Sequence[str], change: Callable[[Pins, Archive], Awaitable[bool]]
) -> None:
    archives = [parse_task(task) for task in tasks]
    settings = _load(config)

    async def run() -> list[Archive]:
        async with open_pins(settings) as pins:
            return [each for each in archives if not await change(pins, each)]

    with retry_later(), interruptible():
        absent = asyncio.run(run())
    if absent:
        raise CommandFailed(f"not found: {', '.join(each.task_id for each in absent)}")


async def _list(settings: Settings, report: Report) -> tuple[Region, ...]:
    """Report each pin, and return the regions that did not list theirs."""
    async with open_pins(settings) as pins:
        listing = await pins.list_pinned()
        for archive in sorted(listing.archives, key=lambda each: each.key):
            if pin := await pins.read_pin(archive):
                report(archive, pin)
    return tuple(listing.failures)


def _print_line(archive: Archive, pin: Pin) -> None:
    click.echo(printable(archive.task_id))
    click.echo(printable(f"  {pin.created_at:%Y-%m-%d %H:%M}  {pin.principal}: {pin.reason}"))


def _print_json(archive: Archive, pin: Pin) -> None:
    click.echo(
        json.dumps(
            {
                "task": archive.task_id,
                "principal": pin.principal,
                "reason": pin.reason,
                "created_at": pin.created_at.isoformat(),
            }
        )
    )
