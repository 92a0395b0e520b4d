"""``archiver demo``: run everything on loopback, in a temporary folder, and show it."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import click

from archiver.client.failures import CommandFailed, Interrupted
from archiver.demo.demo import Demo
from archiver.embedded.program import CannotServe
from archiver.settings.section import validate_address
from archiver.telemetry import LogFormat, set_up_logging


def _validate_listen(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    try:
        return None if value is None else validate_address(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} {exc}") from exc


@click.command("demo")
@click.option("--once", is_flag=True, help="Exit after the demo: with 0 if every check passed.")
@click.option(
    "--listen",
    callback=_validate_listen,
    help="Address and port.  [default: 127.0.0.1:8010, or a free port]",
)
def command(*, once: bool, listen: str | None) -> None:
    """Show Archiver at work on this machine.

    Starts a Mercurial host, NATS, two S3 regions and Archiver, and sends three requests. Needs no
    network and no configuration, and deletes all its files at the end.
    """
    for name in [name for name in os.environ if name.startswith("ARCHIVER_")]:
        del os.environ[name]  # the demo has its own settings
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(Interrupted.exit_code))  # runs every cleanup
    set_up_logging(LogFormat.CONSOLE, level="error", process="demo")
    with tempfile.TemporaryDirectory(prefix="archiver-demo-") as folder:
        try:
            Demo(folder=Path(folder), listen=listen, once=once).play()
        except CannotServe as exc:
            raise CommandFailed(str(exc)) from exc
    click.echo("\nEverything has stopped, and all files are deleted.")
