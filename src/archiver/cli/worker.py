"""``archiver worker``: run one worker process."""

import asyncio
import os
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings
from archiver.cli.options import config_option
from archiver.client.failures import CommandFailed
from archiver.embedded.program import DRAINED, SUPERVISED
from archiver.settings import SettingsError, require_git, require_outside_world, require_tokens
from archiver.wiring.worker import run_worker
from archiver.worker_listener import CannotListen


@click.command("worker")
@config_option
def command(config: Path | None) -> None:
    """Run one worker process until SIGTERM or Ctrl-C, or until it has drained."""
    settings = load_settings(config, require=(require_outside_world, require_tokens, require_git))
    try:
        drained = asyncio.run(run_worker(settings))
    except SettingsError as exc:
        raise CommandFailed(str(exc)) from exc
    except CannotListen as exc:
        listen = settings.worker.metrics_listen
        raise CommandFailed(f"worker.metrics_listen: cannot listen on {listen}: {exc}") from exc
    if drained and SUPERVISED in os.environ:
        raise SystemExit(DRAINED)
