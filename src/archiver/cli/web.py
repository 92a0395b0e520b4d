"""``archiver web``: run the web processes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings
from archiver.cli.options import config_option
from archiver.client.failures import CommandFailed
from archiver.settings import (
    require_cloud_ranges,
    require_hook_secrets,
    require_outside_world,
    require_tokens,
)
from archiver.web.address_claim import CannotListen, fleet_identity
from archiver.web.metrics_listener import serving_metrics, shared_metrics
from archiver.web.server import serve

TARGET = "archiver.wiring.web:web_app"


@click.command("web")
@config_option
def command(config: Path | None) -> None:
    """Run the web processes until SIGTERM or Ctrl-C."""
    require = (require_outside_world, require_cloud_ranges, require_tokens, require_hook_secrets)
    settings = load_settings(config, require=require)
    listen = settings.server.listen
    regions = {name: (each.bucket, each.endpoint) for name, each in settings.regions.items()}
    fleet = fleet_identity(settings.engine.servers, regions)
    try:
        with _serving_metrics(settings.server.metrics_listen):
            serve(TARGET, listen=listen, fleet=fleet, processes=settings.server.processes)
    except CannotListen as exc:
        raise CommandFailed(f"server.listen: cannot listen on {listen}: {exc}") from exc


@contextmanager
def _serving_metrics(address: str | None) -> Iterator[None]:
    with shared_metrics(), ExitStack() as stack:
        try:
            stack.enter_context(serving_metrics(address))
        except CannotListen as exc:
            raise CommandFailed(
                f"server.metrics_listen: cannot listen on {address}: {exc}"
            ) from exc
        yield
