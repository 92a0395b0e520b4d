"""The environment variables that hold settings, and misspelled ones."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel

PREFIX = "ARCHIVER_"
DELIMITER = "__"

ORIGINAL = frozenset({"ARCHIVER_HGMO_URL_TEMPLATE", "ARCHIVER_S3_BUCKETS"})
"""Variables of the original service, which hold settings too."""

NAMED_TABLES = frozenset({"regions", "sources"})
"""Tables whose keys are chosen by the operator."""

ANY_NAME = "*"

_NOT_SETTINGS = frozenset({"ARCHIVER_CONFIG", "ARCHIVER_URL"})
"""Options of commands."""

_SERVICE_HOST = "_SERVICE_HOST"


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


def unknown_variables(root: type[BaseModel]) -> Iterator[str]:
    """Yield a message for each such variable that matches no setting below *root*."""
    for name in setting_variables():
        path = path_of(name)
        if name.upper() not in ORIGINAL and not is_setting(root, path):
            closest = closest_setting(root, path)
            hint = f"; did you mean {PREFIX}{DELIMITER.join(closest).upper()}?" if closest else ""
            yield f"{name}: no such setting{hint}"


def path_of(variable: str) -> list[str]:
    """Return the path of the setting in *variable*."""
    return variable.upper().removeprefix(PREFIX).lower().split(DELIMITER)


def is_setting(root: type[BaseModel], path: Sequence[str]) -> bool:
    """Return whether *path* is a setting below *root*, or a table of settings."""
    return _without_name(path) in _all_paths(root)


def closest_setting(root: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    """Return the path of the setting most like *path*; empty if none is similar."""
    paths = {".".join(each): each for each in _all_paths(root)}
    for match in get_close_matches(".".join(_without_name(path)), paths, n=1, cutoff=0.8):
        return [path[1] if part == ANY_NAME else part for part in paths[match]]
    return ()


def _without_name(path: Sequence[str]) -> tuple[str, ...]:
    """Return *path* with ``*`` for the name of a region or a source."""
    named = len(path) > 1 and path[0] in NAMED_TABLES
    return (path[0], ANY_NAME, *path[2:]) if named else tuple(path)


def _all_paths(model: type[BaseModel]) -> set[tuple[str, ...]]:
    paths: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        path: tuple[str, ...] = (name,)
        paths.add(path)
        below = field.annotation
        if name in NAMED_TABLES:
            path = (name, ANY_NAME)
            paths.add(path)
            below = get_args(below)[1]
        if isinstance(below, type) and issubclass(below, BaseModel):
            paths.update((*path, *rest) for rest in _all_paths(below))
    return paths


def _kubernetes_prefixes() -> tuple[str, ...]:
    """Return prefixes of variables that Kubernetes sets for services with similar names.

    For a service ``archiver-web``, every pod of its namespace has ``ARCHIVER_WEB_SERVICE_HOST``,
    ``ARCHIVER_WEB_PORT`` and others.
    """
    hosts = [
        name.removesuffix(_SERVICE_HOST) for name in os.environ if name.endswith(_SERVICE_HOST)
    ]
    return tuple(f"{host}_{kind}" for host in hosts for kind in ("SERVICE_", "PORT"))
