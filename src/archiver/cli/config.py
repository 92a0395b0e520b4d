"""``archiver config``: check and show the settings."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from archiver.cli.command_settings import load_settings
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.client.text import HIDDEN, hide_user_info, printable
from archiver.embedded.servers import EMBEDDED_REGIONS
from archiver.settings import (
    DEFAULT_CONFIG,
    Settings,
    SettingsError,
    access_warnings,
    find_config,
    find_supported_git,
    require_cloud_ranges,
    require_hook_secrets,
    require_tokens,
    retention_summary,
    retention_warnings,
    serves_git,
    setting_variables,
)
from archiver.telemetry.tracing_setup import tracing_problem


@click.group("config")
def command() -> None:
    """Check or show the settings from the TOML file and the environment."""


@command.command("check")
@quiet_option
@json_option
@config_option
def check(*, quiet: bool, as_json: bool, config: Path | None) -> None:
    """Check the settings, and print what runs where.

    If a setting is wrong, prints every problem and exits with 2.
    """
    settings = load_settings(
        config, require=(require_cloud_ranges, require_tokens, require_hook_secrets)
    )
    path, parts = find_config(config), _describe_parts(settings)
    traces = (problem,) if (problem := tracing_problem()) else ()
    warnings = (*access_warnings(settings), *retention_warnings(settings), *traces)
    if as_json:
        document = {
            "file": str(path.absolute()) if path else None,
            "variables": [*setting_variables()],
            "parts": parts,
            "warnings": [*warnings],
        }
        click.echo(json.dumps(document))
        return
    for line in () if quiet else _iter_report(path, parts):
        click.echo(printable(line))
    for warning in warnings:
        click.echo(printable(f"Warning: {warning}."), err=True)


@command.command("show")
@quiet_option
@json_option
@config_option
def show(
    *,
    quiet: bool,  # noqa: ARG001 - there is nothing but results
    as_json: bool,
    config: Path | None,
) -> None:
    """Print the effective settings as TOML or JSON, with secrets hidden."""
    settings = load_settings(config)
    unused = {name: set(each.settings_of_other_kinds) for name, each in settings.sources.items()}
    values = settings.model_dump(exclude={"sources": unused})
    if as_json:
        click.echo(json.dumps(_to_json(values)))
    else:
        click.echo("\n".join(_format_tables(values, ())).strip())


def _describe_parts(settings: Settings) -> dict[str, str]:
    """Return what runs where."""
    engine = hide_user_info(settings.engine.url) if settings.engine.url else ""
    embedded = " and ".join(EMBEDDED_REGIONS)
    return {
        "serves": settings.server.url,
        "engine": engine or "not set: `archiver serve` starts one",
        "regions": ", ".join(settings.regions) or f"not set: `archiver serve` starts {embedded}",
        "sources": ", ".join(settings.sources) or "not set",
        **({"git": _describe_git()} if serves_git(settings) else {}),
        "expiry": retention_summary(settings),
        "data": str(settings.data_dir.absolute()),
    }


def _iter_report(path: Path | None, parts: Mapping[str, str]) -> Iterator[str]:
    """Yield which file and variables were read, and what runs where as a result."""
    if path:
        yield f"{path.absolute()} is valid."
    else:
        yield (
            f"There is no {DEFAULT_CONFIG} in {Path.cwd()}, and neither --config nor "
            "ARCHIVER_CONFIG names a file, so the defaults apply."
        )
    if names := setting_variables():
        yield f"Environment variables in effect: {', '.join(names)}"
    for name, value in parts.items():
        yield f"  {name:<8} {value}"


def _describe_git() -> str:
    """Return the path and version of git. Web processes do not need it, so it is not an error."""
    try:
        git = find_supported_git()
    except SettingsError as exc:
        return f"unusable, so no worker can start on this machine: {exc}"
    return f"{git.path}, version {'.'.join(map(str, git.version()))}"


def _format_tables(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    arrays = {name: value for name, value in values.items() if _is_array_of_tables(value)}
    plain = {name: value for name, value in values.items() if name not in {*tables, *arrays}}
    if path and (plain or not tables):
        yield ""
        yield f"[{'.'.join(path)}]"
    yield from _format_settings(plain)
    for name, value in tables.items():
        yield from _format_tables(value, (*path, name))
    for name, value in arrays.items():
        for table in value:
            yield from ("", f"[[{'.'.join((*path, name))}]]", *_format_settings(table))


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(each, Mapping) for each in value)


def _format_settings(plain: Mapping[str, Any]) -> Iterator[str]:
    for name, value in plain.items():
        yield f"# {name} is not set" if value is None else f"{name} = {_format_value(value)}"


def _format_value(value: object) -> str:
    """Return a value in TOML, which for these types looks like JSON."""
    match value:
        case SecretStr():
            return json.dumps(HIDDEN)
        case tuple():
            return f"[{', '.join(map(_format_value, value))}]"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            text = json.dumps(hide_user_info(str(value)), ensure_ascii=False)
            return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in text)


def _to_json(value: object) -> object:
    """Return a value as JSON has it, without secrets."""
    match value:
        case Mapping():
            return {str(name): _to_json(each) for name, each in value.items()}
        case tuple() | list() | set() | frozenset():
            return [_to_json(each) for each in value]
        case SecretStr():
            return HIDDEN
        case bool() | int() | float() | None:
            return value
        case _:
            return hide_user_info(str(value))
