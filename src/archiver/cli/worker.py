"""``archiver worker``: one worker process."""

import asyncio
from pathlib import Path

import click

from archiver.cli.failures import CommandFailed
from archiver.cli.options import config_option, settings_from
from archiver.settings import SettingsError, require_outside_world
from archiver.wiring import run_worker


@click.command("worker")
@config_option
def command(config: Path | None) -> None:
    """Fetch and store archives until SIGTERM or Ctrl-C."""
    settings = settings_from(config, require=(require_outside_world,))
    try:
        asyncio.run(run_worker(settings))
    except SettingsError as exc:
        raise CommandFailed(str(exc)) from exc
