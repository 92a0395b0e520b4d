"""``archiver pins``: list, add and remove the pins that protect archives from a purge."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.signals import interruptible
from archiver.cli.task_argument import parse_task
from archiver.client.failures import CommandFailed, RetryLater
from archiver.client.text import printable
from archiver.model import Archive, Pin, Region
from archiver.pins import Pins
from archiver.purge import REASON_ALLOWED, is_reason
from archiver.settings import Settings, require_regions
from archiver.wiring.tools import open_pins

PRINCIPAL = "cli"
ABSENT = "absent"

Report = Callable[[Archive, Pin], None]


@click.group("pins", invoke_without_command=True)
@quiet_option
@json_option
@config_option
@click.pass_context
def command(
    context: click.Context,
    *,
    quiet: bool,  # noqa: ARG001 - there is nothing but results
    as_json: bool,
    config: Path | None,
) -> None:
    """List the pinned archives, or pin and unpin archives.

    A pinned archive is purged only with `archiver purge --pinned`.
    """
    if context.invoked_subcommand:
        return
    settings = _load(config)
    with retry_later(), interruptible():
        silent = asyncio.run(_list(settings, _print_json if as_json else _print_line))
    if silent:
        raise RetryLater(f"{', '.join(silent)} did not list its pins")


@command.command("add")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why, for the log and the list.")
@quiet_option
@json_option
@config_option
def add(
    *, tasks: tuple[str, ...], reason: str, quiet: bool, as_json: bool, config: Path | None
) -> None:
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
    change = Change(
        outcome="pinned",
        apply=lambda pins, each: pins.pin(each, principal=PRINCIPAL, reason=reason),
    )
    _for_each(config, tasks, change, quiet=quiet, as_json=as_json)


@command.command("remove")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@quiet_option
@json_option
@config_option
def remove(*, tasks: tuple[str, ...], quiet: bool, as_json: bool, config: Path | None) -> None:
    """Unpin archives, each named by its task id or its status URL.

    \b
    Exit codes:
      0  unpinned
      1  there is no such pin
      2  wrong usage
     75  a region did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    change = Change(
        outcome="unpinned", apply=lambda pins, each: pins.unpin(each, principal=PRINCIPAL)
    )
    _for_each(config, tasks, change, quiet=quiet, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change to archives. ``apply`` returns False if the archive, or its pin, is absent."""

    outcome: str
    apply: Callable[[Pins, Archive], Awaitable[bool]]


def _load(config: Path | None) -> Settings:
    settings = load_settings_or_embedded(config, require=(require_regions,))
    set_up_command_log(settings, "pins", audited=True)
    return settings


def _for_each(
    config: Path | None, tasks: Sequence[str], change: Change, *, quiet: bool, as_json: bool
) -> None:
    archives = [parse_task(task) for task in tasks]
    settings = _load(config)
    absent: list[Archive] = []

    async def run() -> None:
        async with open_pins(settings) as pins:
            for each in archives:
                outcome = change.outcome if await change.apply(pins, each) else ABSENT
                if outcome == ABSENT:
                    absent.append(each)
                if as_json:
                    click.echo(json.dumps({"task": each.task_id, "outcome": outcome}))
                elif not quiet:
                    click.echo(printable(f"{outcome:<8}  {each.task_id}"))

    with retry_later(), interruptible():
        asyncio.run(run())
    if absent:
        raise CommandFailed(
            f"not found: {', '.join(each.task_id for each in absent)}",
            hint="`archiver list` lists the archives, and `archiver pins` the pins.",
        )


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
