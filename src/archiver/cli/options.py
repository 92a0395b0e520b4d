"""Options that several commands share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from archiver.cli.failures import CommandFailed, Misused
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import find_running
from archiver.embedded.rclone import no_proxy
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


def settings_beside(
    config: Path | None, *, require: Sequence[Callable[[Settings], None]]
) -> Settings:
    """Return the settings of a command that works with an engine and regions elsewhere.

    Where the settings name none, the command uses those that `archiver serve` runs at this moment
    in the data folder.

    Raises:
        Misused: The settings are wrong, or neither they nor the data folder lead anywhere.
        CommandFailed: The data folder cannot be read.
    """
    settings = settings_from(config)
    try:
        for check in require:
            check(settings)
    except SettingsError:
        _find_embedded(settings)
    try:
        return settings_from(config, require=require)
    except Misused as exc:
        raise Misused(f"{exc.message}; none runs in {settings.data_dir.absolute()}") from exc


def _find_embedded(settings: Settings) -> None:
    try:
        running = find_running(settings.data_dir)
    except CannotServe as exc:
        raise CommandFailed(str(exc)) from exc
    if not settings.engine.servers:
        engine = {name: running[name] for name in running if name.startswith("ARCHIVER_ENGINE__")}
        os.environ.update(engine)
    if not settings.regions and "ARCHIVER_REGIONS" in running:
        os.environ["ARCHIVER_REGIONS"] = running["ARCHIVER_REGIONS"]
        os.environ["NO_PROXY"] = no_proxy()
