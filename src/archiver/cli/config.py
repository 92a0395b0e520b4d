"""``archiver config``: whether the settings are well-formed, and what they are."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from archiver.cli.options import config_option, settings_from
from archiver.cli.secrets import HIDDEN, hide_user_info
from archiver.settings import require_ranges


@click.group("config")
def command() -> None:
    """Check or show the settings, as TOML and environment make them."""


@command.command("check")
@config_option
def check(config: Path | None) -> None:
    """Say what is wrong with the settings, if anything; exit with 2 if so."""
    settings_from(config, require=(require_ranges,))
    click.echo("The settings are well-formed.", err=True)


@command.command("show")
@config_option
def show(config: Path | None) -> None:
    """Write the settings in force as TOML, secrets hidden."""
    click.echo("\n".join(_table(settings_from(config).model_dump(), ())).strip())


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
