"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_SERVER = "http://127.0.0.1:8010"

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the settings.  [default: $ARCHIVER_CONFIG, else ./archiver.toml]",
)

# Not ARCHIVER_SERVER: that variable holds the settings' whole section "server".
server_option = click.option(
    "--server",
    envvar="ARCHIVER_URL",
    default=DEFAULT_SERVER,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="URL of Archiver.",
)

servers_option = click.option(
    "--server",
    "servers",
    envvar="ARCHIVER_URL",
    default=(DEFAULT_SERVER,),
    multiple=True,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="URL of Archiver. Repeat it: the next one is asked if one does not respond.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")
