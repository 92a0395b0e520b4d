"""How a command loads its settings, or finds those of the `archiver serve` that runs."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.embedded.data_folder import find_running
from archiver.embedded.program import CannotServe
from archiver.embedded.servers import no_proxy
from archiver.settings import Settings, SettingsError, load
from archiver.telemetry import set_up_logging


def load_settings(
    config: Path | None, *, require: Sequence[Callable[[Settings], None]] = ()
) -> Settings:
    """Return the settings, and let child processes load the same.

    Each function in *require* raises SettingsError if the settings lack what the command needs.
    Raises InvalidUsage, with every setting that is wrong or missing.
    """
    try:
        settings = load(config)
        for require_settings in require:
            require_settings(settings)
    except SettingsError as exc:
        raise InvalidUsage(str(exc)) from exc
    if config:
        os.environ["ARCHIVER_CONFIG"] = str(config.absolute())
    return settings


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InvalidUsage:
    """Return the failure of a source or region that the settings do not have."""
    names = ", ".join(known) or "none"
    return InvalidUsage(f"the settings have no {kind} {name}", hint=f"They have these: {names}.")


def load_settings_or_embedded(
    config: Path | None, *, require: Sequence[Callable[[Settings], None]], source: str | None = None
) -> Settings:
    """Return the settings of a command that uses the engine and the regions of other processes.

    If the settings name none, they are those of the `archiver serve` in the data folder.

    Raises:
        InvalidUsage: The settings are wrong, lack *source*, or name no servers and none run.
        CommandFailed: The data folder cannot be read.
    """
    settings = load_settings(config)
    try:
        for require_settings in require:
            require_settings(settings)
    except SettingsError:
        _use_embedded(settings)
    try:
        settings = load_settings(config, require=require)
    except InvalidUsage as exc:
        raise InvalidUsage(
            f"{exc.message}; no `archiver serve` runs in {settings.data_dir.absolute()}",
            hint="Name the settings of the fleet with --config, or start `archiver serve`.",
        ) from exc
    if source and source not in settings.sources:
        raise unknown_name("source", source, settings.sources)
    return settings


def set_up_command_log(
    settings: Settings, process: str, *, audited: bool = False, reports: bool = False
) -> None:
    """Log what goes wrong and, of an *audited* command, what it changes. Its output has the rest.

    The output of a command that *reports* has the warnings as well.

    With ``log.level = "debug"``, everything is logged.
    """
    level = settings.log.level
    usual = "info" if audited else "error" if reports else "warning"
    set_up_logging(settings.log.format, level=usual if level == "info" else level, process=process)
    if level == "info":
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_no_connection)


def _is_no_connection(record: logging.LogRecord) -> bool:
    """Return whether the event is of interest beside the results of a command."""
    event = record.msg.get("event", "") if isinstance(record.msg, dict) else ""
    return record.levelno > logging.INFO or not event.startswith("engine.")


def _use_embedded(settings: Settings) -> None:
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
