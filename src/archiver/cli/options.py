"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from archiver.cli.failure_report import AS_JSON

CACHE_MAX_BYTES = 10 * 1024**3

Command = TypeVar("Command", bound=Callable[..., object])

DEFAULT_SERVER = "http://127.0.0.1:8010"

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the settings.  [default: $ARCHIVER_CONFIG, else ./archiver.toml]",
)

# Not ARCHIVER_SERVER: that variable holds the settings' whole section "server".
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


def _note_json(context: click.Context, _option: click.Parameter, value: bool) -> bool:  # noqa: FBT001
    """Note that failures are to be reported as JSON, too."""
    if value:
        context.meta[AS_JSON] = True
    return bool(context.meta.get(AS_JSON))  # of a group: `archiver pins --json add …`


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_note_json,
    help="Write JSON to standard output.",
)

quiet_option = click.option(
    "--quiet", is_flag=True, help="Write only results, warnings and errors."
)

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    default=4,
    show_default=True,
    help="Archives at a time.",
)

only_option = click.option(
    "--only", multiple=True, metavar="NAME", help="Only this archive of the file. Repeat it."
)


def cache_options(command: Command) -> Command:
    """Add the options of a cache that processes share."""
    folder = click.option(
        "--cache",
        "cache_folder",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="ARCHIVER_CACHE",
        show_envvar=True,
        help="Folder of archives that jobs on this machine share.",
    )
    max_bytes = click.option(
        "--cache-max-bytes",
        type=click.IntRange(min=0),
        default=CACHE_MAX_BYTES,
        show_default="10 GiB",
        help="Remove from the cache what was used longest ago.",
    )
    return folder(max_bytes(command))
