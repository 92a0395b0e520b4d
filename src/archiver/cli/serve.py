"""``archiver serve``: run everything on this machine that is not configured to run elsewhere."""

import asyncio
import time
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from archiver.cli.command_settings import load_settings
from archiver.cli.options import config_option
from archiver.client.failures import CommandFailed
from archiver.client.text import hide_user_info, printable
from archiver.embedded.data_folder import DataFolder, open_data_folder
from archiver.embedded.program import CannotServe, http_probe
from archiver.embedded.servers import EMBEDDED_REGIONS
from archiver.embedded.stack import (
    StackOptions,
    create_supervisor,
    run_until_stopped,
    split_address,
)
from archiver.settings import (
    Settings,
    SettingsError,
    require_cloud_ranges,
    require_git,
    require_hook_secrets,
    require_tokens,
)
from archiver.telemetry import set_up_logging

HEALTHY_WITHIN_S = 6.0
"""The heartbeat stops waiting for a region after three seconds, and for the engine after two."""

POLL_S = 0.1


@click.command("serve")
@config_option
def command(config: Path | None) -> None:
    """Run everything that is not configured to run elsewhere.

    Starts web processes, workers and, unless the settings name others, NATS and S3 servers.

    Stops cleanly on SIGTERM or Ctrl-C, and at once on the second one.
    """
    require = (
        require_cloud_ranges,
        require_one_metrics_listener,
        require_tokens,
        require_hook_secrets,
        require_git,
    )
    settings = load_settings(config, require=require)
    set_up_logging(settings.log.format, level=settings.log.level, process="serve")
    try:
        with open_data_folder(settings.data_dir) as folder:
            asyncio.run(_serve(settings, folder))
    except CannotServe as exc:
        raise CommandFailed(str(exc)) from exc


def require_one_metrics_listener(settings: Settings) -> None:
    """Raise SettingsError if several workers would serve metrics at one address."""
    if settings.worker.metrics_listen not in {None, "off"} and settings.worker.processes > 1:
        raise SettingsError(
            "worker.metrics_listen: is one address for several `worker.processes`; leave it out, "
            "because the web processes of `archiver serve` report the metrics of all workers"
        )


async def _serve(settings: Settings, folder: DataFolder) -> None:
    options = StackOptions(
        listen=settings.server.listen,
        workers=settings.worker.processes,
        worker_grace_s=settings.worker.grace_s,
        embed_engine=not settings.engine.servers,
        embed_regions=not settings.regions,
    )

    async def print_and_wait() -> None:
        print_summary(settings, healthy=await is_healthy(settings))
        await asyncio.Event().wait()

    await run_until_stopped(create_supervisor(options, folder), print_and_wait)


async def is_healthy(settings: Settings) -> bool:
    """Return True as soon as the heartbeat is 200, and False if it is not in time.

    Embedded servers need no check: the web processes start only after them.
    """
    if not settings.engine.servers and not settings.regions:
        return True
    host, port = split_address(settings.server.listen)
    heartbeat = http_probe(host, port, "/__heartbeat__", expect=b" 200")
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < deadline:
        if await heartbeat.succeeds():
            return True
        await asyncio.sleep(POLL_S)
    return False


def print_summary(settings: Settings, *, healthy: bool) -> None:
    """Print to standard error where everything runs, and a request to try."""
    regions = settings.regions or EMBEDDED_REGIONS
    source = next(iter(settings.sources))
    url = settings.server.url
    engine = hide_user_info(settings.engine.url) if settings.engine.url else "embedded"
    lines = {
        "serves": url,
        "engine": engine,
        "regions": ", ".join(regions) + ("" if settings.regions else " (embedded)"),
        "sources": ", ".join(settings.sources),
        "data": str(settings.data_dir.absolute()),
        "try": f"curl -i '{url}/archiver/{source}/REPO/REV'"
        if healthy
        else f"nothing yet: {url}/__heartbeat__ and the log name the part that does not respond",
    }
    page = "\n".join(
        f"  [dim]{name:<8}[/] {escape(printable(said))}" for name, said in lines.items()
    )
    # At once, as the lines of the log are: the processes that have been started write there, too.
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"\n{page}\n")
