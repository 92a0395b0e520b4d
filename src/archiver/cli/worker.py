"""``archiver worker``: one worker process."""

import asyncio
from pathlib import Path

import click

from archiver.cli.failures import Misused
from archiver.cli.options import config_option, settings_from
from archiver.settings import SettingsError
from archiver.wiring import run_worker


@click.command("worker")
@config_option
def command(config: Path | None) -> None:
    """Fetch and store archives until SIGTERM or Ctrl-C."""
    settings = settings_from(config)
    try:
        asyncio.run(run_worker(settings))
    except SettingsError as exc:
        raise Misused(str(exc)) from exc
