"""Loads the settings, and explains which are wrong, missing or misspelled."""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError as PydanticSettingsError

from archiver.settings.section import SettingsError
from archiver.settings.tree import DELIMITER, PREFIX, Settings

DEFAULT_CONFIG = Path("archiver.toml")

_ORIGINAL = frozenset({"ARCHIVER_HGMO_URL_TEMPLATE", "ARCHIVER_S3_BUCKETS"})
"""Variables of the original service, which hold settings too."""

_NAMED_TABLES = frozenset({"hooks", "prewarm", "regions", "sources", "tokens"})
"""Tables whose keys are chosen by the operator."""

_NOT_SETTINGS = frozenset({"ARCHIVER_CACHE", "ARCHIVER_CONFIG", "ARCHIVER_TOKEN", "ARCHIVER_URL"})
"""Options of commands."""


def find_config(config: Path | None = None) -> Path | None:
    """Return *config*, else ``ARCHIVER_CONFIG``, else ``archiver.toml`` if it exists."""
    if config:
        return config
    if named := os.environ.get("ARCHIVER_CONFIG"):
        return Path(named)
    return DEFAULT_CONFIG if os.path.lexists(DEFAULT_CONFIG) else None


def load(config: Path | None = None) -> Settings:
    """Return the settings from the environment, which wins, and the TOML file.

    Raises SettingsError if the file cannot be read, or if a setting is wrong or unknown.
    """
    if unknown := "\n".join(_iter_unknown_variables()):
        raise SettingsError(unknown)
    path = find_config(config)
    try:
        return Settings(**(tomllib.loads(path.read_text()) if path else {}))
    except OSError as exc:
        raise SettingsError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: not TOML: {exc}") from exc
    except ValidationError as exc:
        errors = [*_iter_causes(exc)]
        raise SettingsError("\n".join(map(_format_error, errors))) from None
    except PydanticSettingsError as exc:
        raise SettingsError(_explain_json(exc)) from None


def require_outside_world(settings: Settings) -> None:
    require_engine(settings)
    require_regions(settings)


def require_engine(settings: Settings) -> None:
    if not settings.engine.servers:
        raise SettingsError(
            "engine.url: is required, except for `archiver serve`, which can start an engine"
        )


def require_regions(settings: Settings) -> None:
    if not settings.regions:
        raise SettingsError(
            "regions: at least one is required, except for `archiver serve`, which can start two"
        )


def require_tokens(settings: Settings) -> None:
    """Raise SettingsError with every source whose token cannot be read."""
    _require_readable({name: each.read_authorization for name, each in settings.sources.items()})


def require_hook_secrets(settings: Settings) -> None:
    """Raise SettingsError with every hook whose secret cannot be read."""
    _require_readable({name: each.read_secrets for name, each in settings.hooks.items()})


def _require_readable(readers: Mapping[str, Callable[[str], object]]) -> None:
    problems = []
    for name, read in readers.items():
        try:
            read(name)
        except SettingsError as exc:
            problems.append(str(exc))
    if problems:
        raise SettingsError("\n".join(problems))


def _iter_causes(exc: ValidationError) -> Iterator[ErrorDetails]:
    """Yield the errors, except of a list that is too short only because its items are wrong."""
    errors = exc.errors(include_input=False, include_url=False)  # a value may be a secret
    above = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    for error in errors:
        if error["type"] != "too_short" or error["loc"] not in above:
            yield error


def _format_error(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    match error["type"]:
        case "extra_forbidden":
            closest = ".".join(_closest_setting(path))
            text = f"no such setting; did you mean {closest}?" if closest else "no such setting"
        case "value_error":
            text = str(error["ctx"]["error"])
        case "tuple_type":
            text = f"must be a list of {_item_kind(path)}"
        case "too_short":
            text = "must be a list that is not empty"
        case "string_type":
            text = "must be a string"
        case "dict_type" | "model_type":
            text = "must be a table"
        case _:
            text = error["msg"]
    return ": ".join(filter(None, (".".join(path), text)))


def _item_kind(path: Sequence[str]) -> str:
    item = (*_without_name(path), "*")
    has_settings = any(each[: len(item)] == item for each in _all_paths(Settings))
    return "tables" if has_settings else "strings"


def _explain_json(exc: PydanticSettingsError) -> str:
    """Return which variables must be JSON: those of a table, or one setting."""
    table = str(exc).partition('"')[2].partition('"')[0]
    names = [name for name in setting_variables() if _path_of(name)[0] == table]
    return f"{' or '.join(names) or table}: must be JSON"


def setting_variables() -> list[str]:
    """Return the environment variables that look like settings, known or not."""
    prefixes = _kubernetes_prefixes()
    return sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX)
        and name.upper() not in _NOT_SETTINGS
        and not name.startswith(prefixes)
    )


def _iter_unknown_variables() -> Iterator[str]:
    """Yield a message for each setting variable that matches no setting."""
    for name in setting_variables():
        path = _path_of(name)
        if name.upper() not in _ORIGINAL and _without_name(path) not in _all_paths(Settings):
            closest = _closest_setting(path)
            hint = f"; did you mean {PREFIX}{DELIMITER.join(closest).upper()}?" if closest else ""
            yield f"{name}: no such setting{hint}"


def _path_of(variable: str) -> list[str]:
    return variable.upper().removeprefix(PREFIX).lower().split(DELIMITER)


def _closest_setting(path: Sequence[str]) -> Sequence[str]:
    """Return the path of the setting most like *path*; empty if none is similar."""
    paths = {".".join(each): each for each in _all_paths(Settings)}
    general = ["*" if part.isdigit() else part for part in _without_name(path)]
    for match in get_close_matches(".".join(general), paths, n=1, cutoff=0.8):
        return [path[n] if part == "*" else part for n, part in enumerate(paths[match])]
    return ()


def _without_name(path: Sequence[str]) -> tuple[str, ...]:
    """Return *path* with ``*`` for the name of a region, a source or a token."""
    named = len(path) > 1 and path[0] in _NAMED_TABLES
    return (path[0], "*", *path[2:]) if named else tuple(path)


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _all_paths(model: type[BaseModel]) -> set[tuple[str, ...]]:
    paths: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        path: tuple[str, ...] = (name,)
        paths.add(path)
        below = field.annotation
        if get_origin(below) is dict:
            path = (name, "*")
            paths.add(path)
            below = get_args(below)[1]
        elif get_origin(below) is tuple and _is_section(get_args(below)[0]):
            path = (name, "*")  # the number of a table in an array
            below = get_args(below)[0]
        if _is_section(below):
            paths.update((*path, *rest) for rest in _all_paths(below))
    return paths


def _kubernetes_prefixes() -> tuple[str, ...]:
    """Return prefixes of variables that Kubernetes sets for services with similar names.

    For a service ``archiver-web``, every pod of its namespace has ``ARCHIVER_WEB_SERVICE_HOST``,
    ``ARCHIVER_WEB_PORT`` and others.
    """
    suffix = "_SERVICE_HOST"
    hosts = [name.removesuffix(suffix) for name in os.environ if name.endswith(suffix)]
    return tuple(f"{host}_{kind}" for host in hosts for kind in ("SERVICE_", "PORT"))
