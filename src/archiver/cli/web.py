"""``archiver web``: the web processes."""

from pathlib import Path

import click

from archiver.cli.failures import CommandFailed
from archiver.cli.options import config_option, settings_from
from archiver.settings import require_outside_world, require_ranges
from archiver.web.address_claim import fleet_identity
from archiver.web.server import CannotListen, serve

TARGET = "archiver.wiring:web_app"


@click.command("web")
@config_option
def command(config: Path | None) -> None:
    """Serve the HTTP interface until SIGTERM or Ctrl-C."""
    settings = settings_from(config, require=(require_outside_world, require_ranges))
    listen = settings.server.listen
    regions = {name: (each.bucket, each.endpoint) for name, each in settings.regions.items()}
    fleet = fleet_identity(settings.engine.servers, regions)
    try:
        serve(TARGET, listen=listen, fleet=fleet, processes=settings.server.processes)
    except CannotListen as exc:
        raise CommandFailed(f"server.listen: {listen} cannot be had: {exc}") from exc
