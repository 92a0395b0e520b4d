"""``archiver serve``: everything that is not configured to be elsewhere, on this machine."""

import asyncio
import time
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from archiver.cli.failures import CommandFailed
from archiver.cli.options import config_option, settings_from
from archiver.cli.secrets import hide_user_info
from archiver.cli.terminal import printable
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import open_folder
from archiver.embedded.probe import http
from archiver.embedded.rclone import PLACES
from archiver.embedded.stack import Plan, assemble, run
from archiver.embedded.supervisor import Supervisor
from archiver.settings import Settings, SettingsError, require_ranges
from archiver.telemetry import set_up_logging

WELL_WITHIN_S = 6.0
"""A frozen region is given up after three seconds, an engine after two."""

LOOK_EVERY_S = 0.1


@click.command("serve")
@config_option
def command(config: Path | None) -> None:
    """Run web processes, workers and, unless they are configured, NATS and S3 servers.

    Ends in order at SIGTERM or Ctrl-C, and at once at the second one.
    """
    settings = settings_from(config, require=(require_ranges, require_own_metrics))
    set_up_logging(settings.log.format, level=settings.log.level, process="serve")
    try:
        with open_folder(settings.data_dir) as folder:
            asyncio.run(_serve(settings, assemble(plan(settings), folder)))
    except CannotServe as exc:
        raise CommandFailed(str(exc)) from exc


def require_own_metrics(settings: Settings) -> None:
    """Return if no two workers here are to serve metrics at one address. Raises SettingsError."""
    if settings.worker.metrics_listen and settings.worker.processes > 1:
        raise SettingsError(
            "worker.metrics_listen: is one address, and `worker.processes` are several; "
            "the web processes of `archiver serve` tell of all workers"
        )


def plan(settings: Settings) -> Plan:
    """Return what has to run here, because it is not configured to run elsewhere."""
    return Plan(
        listen=settings.server.listen,
        workers=settings.worker.processes,
        worker_grace_s=settings.worker.grace_s,
        embed_engine=not settings.engine.servers,
        embed_regions=not settings.regions,
    )


async def _serve(settings: Settings, supervisor: Supervisor) -> None:
    async def until_told() -> None:
        announce(settings, well=await is_well(settings))
        await asyncio.Event().wait()

    await run(supervisor, until_told)


async def is_well(settings: Settings) -> bool:
    """Return True as soon as the heartbeat is 200, False if it is not within WELL_WITHIN_S.

    The embedded parts answer, or nothing would have been started after them.
    """
    if not settings.engine.servers and not settings.regions:
        return True
    host, _, port = settings.server.listen.rpartition(":")
    heartbeat = http(host.strip("[]"), int(port), "/__heartbeat__", expect=b" 200")
    deadline = time.monotonic() + WELL_WITHIN_S
    while time.monotonic() < deadline:
        if await heartbeat.answers():
            return True
        await asyncio.sleep(LOOK_EVERY_S)
    return False


def announce(settings: Settings, *, well: bool) -> None:
    """Say on standard error where what is, and what can be tried."""
    regions = [*settings.regions] or [place.region for place in PLACES]
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
        if well
        else f"nothing yet: see {url}/__heartbeat__, and the log for what does not answer",
    }
    page = "\n".join(
        f"  [dim]{name:<8}[/] {escape(printable(said))}" for name, said in lines.items()
    )
    # At once, as the lines of the log are: the processes that have been started write there, too.
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"\n{page}\n")
