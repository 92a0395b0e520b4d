"""The environment variables that hold settings, and those that look as if they did."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel

PREFIX = "ARCHIVER_"
DELIMITER = "__"

ORIGINAL = frozenset({"ARCHIVER_HGMO_URL_TEMPLATE", "ARCHIVER_S3_BUCKETS"})
"""Settings under the names that the original service gave them."""

NAMED_TABLES = frozenset({"regions", "sources"})
"""The tables whose keys are names that the operator chooses."""

ANY_NAME = "*"

_NO_SETTINGS = frozenset({"ARCHIVER_CONFIG", "ARCHIVER_URL"})
"""Options of the command line."""

_SERVICE_HOST = "_SERVICE_HOST"


def setting_variables() -> list[str]:
    """Return the variables of this process that are meant to be settings, known or not."""
    services = _services()
    return sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX)
        and name.upper() not in _NO_SETTINGS
        and not name.startswith(services)
    )


def unknown_variables(root: type[BaseModel]) -> Iterator[str]:
    """Yield a sentence for each of them that no setting below *root* belongs to."""
    for name in setting_variables():
        path = path_of(name)
        if name.upper() not in ORIGINAL and not is_setting(root, path):
            likely = likeliest(root, path)
            hint = f"; {PREFIX}{DELIMITER.join(likely).upper()} is one" if likely else ""
            yield f"{name}: no such setting{hint}"


def path_of(variable: str) -> list[str]:
    """Return the path of the setting that *variable* holds."""
    return variable.upper().removeprefix(PREFIX).lower().split(DELIMITER)


def is_setting(root: type[BaseModel], path: Sequence[str]) -> bool:
    """Tell whether *path* leads to a setting below *root*, or to a table of some."""
    return _unnamed(path) in _paths(root)


def likeliest(root: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    """Return the setting that *path* is likely meant to be; empty if there is none like it."""
    known = {".".join(known): known for known in _paths(root)}
    for close in get_close_matches(".".join(_unnamed(path)), known, n=1, cutoff=0.8):
        return [path[1] if part == ANY_NAME else part for part in known[close]]
    return ()


def _unnamed(path: Sequence[str]) -> tuple[str, ...]:
    """Return *path* without the name that it gives to a region or a source."""
    named = len(path) > 1 and path[0] in NAMED_TABLES
    return (path[0], ANY_NAME, *path[2:]) if named else tuple(path)


def _paths(model: type[BaseModel]) -> set[tuple[str, ...]]:
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
            paths.update((*path, *rest) for rest in _paths(below))
    return paths


def _services() -> tuple[str, ...]:
    """Return how the variables begin that Kubernetes sets for services whose names are like ours.

    A service ``archiver-web`` gives every pod beside it ``ARCHIVER_WEB_SERVICE_HOST``,
    ``ARCHIVER_WEB_PORT`` and more.
    """
    hosts = [
        name.removesuffix(_SERVICE_HOST) for name in os.environ if name.endswith(_SERVICE_HOST)
    ]
    return tuple(f"{host}_{kind}" for host in hosts for kind in ("SERVICE_", "PORT"))
