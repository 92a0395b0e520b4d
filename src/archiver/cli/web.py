"""``archiver web``: the web processes."""

from pathlib import Path

import click

from archiver.cli.options import config_option, settings_from
from archiver.settings import require_outside_world, require_ranges
from archiver.web.server import serve

TARGET = "archiver.wiring:web_app"


@click.command("web")
@config_option
def command(config: Path | None) -> None:
    """Serve the HTTP interface until SIGTERM or Ctrl-C."""
    settings = settings_from(config, require=(require_outside_world, require_ranges))
    serve(TARGET, listen=settings.server.listen, processes=settings.server.processes)
