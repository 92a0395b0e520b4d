"""Options that several commands share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from archiver.cli.failures import Misused
from archiver.settings import Settings, SettingsError, load

DEFAULT_SERVER = "http://127.0.0.1:8010"

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the settings. [default: $ARCHIVER_CONFIG, or archiver.toml if it is here]",
)

# Not ARCHIVER_SERVER, which to the settings means their whole section of that name.
server_option = click.option(
    "--server",
    envvar="ARCHIVER_URL",
    default=DEFAULT_SERVER,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="Where Archiver is.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def settings_from(
    config: Path | None, *, require: Sequence[Callable[[Settings], None]] = ()
) -> Settings:
    """Return the settings; every process that is started from here on finds the same ones.

    Each of *require* refuses those that do not name what the command needs.

    Raises:
        Misused: They are wrong; each that is, is named.
    """
    try:
        settings = load(config)
        for check in require:
            check(settings)
    except SettingsError as exc:
        raise Misused(str(exc)) from exc
    if config:
        os.environ["ARCHIVER_CONFIG"] = str(config.absolute())
    return settings
