"""Loads the settings, and explains which of them are wrong or missing."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as PydanticSettingsError

from archiver.settings.section import SettingsError
from archiver.settings.tree import Settings
from archiver.settings.variables import (
    closest_setting,
    path_of,
    setting_variables,
    unknown_variables,
)

DEFAULT_CONFIG = Path("archiver.toml")


def find_config(config: Path | None = None) -> Path | None:
    """Return *config*, else ``ARCHIVER_CONFIG``, else ``archiver.toml`` if it exists."""
    if config:
        return config
    if named := os.environ.get("ARCHIVER_CONFIG"):
        return Path(named)
    return DEFAULT_CONFIG if os.path.lexists(DEFAULT_CONFIG) else None


def load(config: Path | None = None) -> Settings:
    """Return the settings from the environment and the TOML file. The environment wins.

    Raises:
        SettingsError: The file cannot be read, or a setting is wrong or unknown.
    """
    if unknown := "\n".join(unknown_variables(Settings)):
        raise SettingsError(unknown)
    path = find_config(config)
    try:
        return Settings(**(tomllib.loads(path.read_text()) if path else {}))
    except OSError as exc:
        raise SettingsError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: not TOML: {exc}") from exc
    except (ValidationError, PydanticSettingsError) as exc:
        raise SettingsError(_explain(exc)) from None


def require_outside_world(settings: Settings) -> None:
    """Raise SettingsError unless an engine and regions are configured."""
    require_engine(settings)
    require_regions(settings)


def require_engine(settings: Settings) -> None:
    """Raise SettingsError unless an engine is configured."""
    if not settings.engine.servers:
        raise SettingsError(
            "engine.url: is required, except for `archiver serve`, which can start an engine"
        )


def require_regions(settings: Settings) -> None:
    """Raise SettingsError unless a region is configured."""
    if not settings.regions:
        raise SettingsError(
            "regions: at least one is required, except for `archiver serve`, which can start two"
        )


def _explain(exc: ValidationError | PydanticSettingsError) -> str:
    """Return each wrong setting with its problem, without its value, which may be a secret."""
    if isinstance(exc, PydanticSettingsError):
        return _explain_json(exc)
    return "\n".join(map(_format_error, exc.errors(include_input=False, include_url=False)))


def _format_error(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    match error["type"]:
        case "extra_forbidden":
            closest = ".".join(closest_setting(Settings, path))
            text = f"no such setting; did you mean {closest}?" if closest else "no such setting"
        case "value_error":
            text = str(error["ctx"]["error"])
        case _:
            text = error["msg"]
    return ": ".join(filter(None, (".".join(path), text)))


def _explain_json(exc: PydanticSettingsError) -> str:
    """Return which variables must be JSON: those of a table, or one setting."""
    table = str(exc).partition('"')[2].partition('"')[0]
    names = [name for name in setting_variables() if path_of(name)[0] == table]
    return f"{' or '.join(names) or table}: must be JSON"
