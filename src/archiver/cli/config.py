"""``archiver config``: whether the settings are well-formed, and what they are."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from archiver.cli.options import config_option, settings_from
from archiver.cli.secrets import HIDDEN, hide_user_info
from archiver.cli.terminal import printable
from archiver.embedded.rclone import PLACES
from archiver.settings import (
    DEFAULT_CONFIG,
    Settings,
    find_config,
    require_ranges,
    setting_variables,
)


@click.group("config")
def command() -> None:
    """Check or show the settings, as TOML and environment make them."""


@command.command("check")
@config_option
def check(config: Path | None) -> None:
    """Name the file and what it leads to, or what is wrong with it; then exit with 2."""
    settings = settings_from(config, require=(require_ranges,))
    for line in _report(settings, find_config(config)):
        click.echo(printable(line), err=True)


@command.command("show")
@config_option
def show(config: Path | None) -> None:
    """Write the settings in force as TOML, secrets hidden."""
    click.echo("\n".join(_table(settings_from(config).model_dump(), ())).strip())


def _report(settings: Settings, path: Path | None) -> Iterator[str]:
    """Yield which file was read, what stands above it, and what runs where as a result."""
    if path:
        yield f"{path.absolute()} is well-formed."
    else:
        yield (
            f"There is no {DEFAULT_CONFIG} in {Path.cwd()}, and neither --config nor "
            "ARCHIVER_CONFIG names a file, so the defaults hold."
        )
    if names := setting_variables():
        yield f"The environment counts more: {', '.join(names)}"
    engine = hide_user_info(settings.engine.url) if settings.engine.url else ""
    embedded = " and ".join(place.region for place in PLACES)
    for name, value in (
        ("serves", settings.server.url),
        ("engine", engine or "not set: `archiver serve` starts one"),
        ("regions", ", ".join(settings.regions) or f"not set: `archiver serve` starts {embedded}"),
        ("sources", ", ".join(settings.sources) or "not set"),
        ("data", str(settings.data_dir.absolute())),
    ):
        yield f"  {name:<8} {value}"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if name not in tables}
    if path and (plain or not tables):
        yield ""
        yield f"[{'.'.join(path)}]"
    for name, value in plain.items():
        yield f"# {name} is not set" if value is None else f"{name} = {_value(value)}"
    for name, value in tables.items():
        yield from _table(value, (*path, name))


def _value(value: object) -> str:
    """Write a value as TOML has it, which for these types is as JSON has it."""
    match value:
        case SecretStr():
            return json.dumps(HIDDEN)
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return _escaped(json.dumps(hide_user_info(str(value)), ensure_ascii=False))


def _escaped(text: str) -> str:
    """Return *text* with what does something to a terminal in TOML's escapes."""
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in text)
