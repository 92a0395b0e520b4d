"""docs/reference names everything that the code has."""

import json
import re
from pathlib import Path

import click
import pytest
from pydantic.fields import FieldInfo

from archiver.cli import main
from archiver.jetstream.connection_faults import CHECKS
from archiver.web.app import ROUTES
from archiver.web.problems import STATUSES
from tests.docs.reference import (
    ALL_SETTINGS,
    FOLDER,
    LOGS,
    SETTINGS,
    metric_texts,
    names,
    section,
    updated,
)

ROOT = Path(__file__).parents[2]
EVENT = re.compile(
    r"""(?:log|log\.bind\(.*?\))\.(debug|info|warning|error|exception)\(\s*"([a-z_.]+)"""
)


def _page(name: str) -> str:
    return (FOLDER / name).read_text()


def _default(field: FieldInfo) -> str | None:
    """Return a default as the reference writes it; None if the code computes it."""
    match field.default:
        case _ if field.is_required():
            return "required"
        case _ if field.default_factory:
            return None
        case None:
            return ""
        case str() as text:
            return f"`{text}`"
        case value:
            return f"`{json.dumps(value)}`"


def test_texts_that_come_from_the_code_are_up_to_date() -> None:
    """If not: `make docs`."""
    assert updated() == {path: path.read_text() for path in updated()}


def test_every_setting_is_described_and_no_other() -> None:
    assert names(SETTINGS.read_text()) == ALL_SETTINGS.keys()


@pytest.mark.parametrize("setting", ALL_SETTINGS)
def test_every_setting_is_described_with_its_default(setting: str) -> None:
    default = _default(ALL_SETTINGS[setting])
    (described,) = re.findall(
        rf"^\| `{re.escape(setting)}` \| (.*?) ?\| ", SETTINGS.read_text(), re.MULTILINE
    )

    assert default is None or described == default


@pytest.mark.parametrize("code", sorted(STATUSES))
def test_every_error_code_is_described_with_its_status(code: str) -> None:
    assert re.search(rf"^\| `{code}`( ↻)? \| {STATUSES[code]} \|", _page("errors.md"), re.MULTILINE)


def test_every_metric_is_described_and_no_other() -> None:
    assert names(section(LOGS.read_text(), "Metrics")) == metric_texts().keys()


def test_every_reason_of_the_engine_is_described_and_no_other() -> None:
    assert names(section(LOGS.read_text(), "Reasons of the engine")) == CHECKS.keys()


def test_every_route_is_described() -> None:
    paths = {re.sub(r"\{.*", "", route.path).rstrip("/") for route in ROUTES}

    assert [path for path in sorted(paths) if path not in _page("http.md")] == []


def test_every_command_is_described() -> None:
    assert isinstance(main, click.Group)
    assert [name for name in main.commands if f"`archiver {name}" not in _page("commands.md")] == []


def test_every_log_event_is_described_with_its_level() -> None:
    sources = (path.read_text() for path in (ROOT / "src").rglob("*.py"))
    events = {found for text in sources for found in EVENT.findall(text)}
    rows = re.findall(r"^\| (`.+?`) \| ([a-z, ]+) \|", LOGS.read_text(), re.MULTILINE)
    described = {
        (level, event)
        for cell, levels in rows
        for event in re.findall(r"[a-z_.]+", cell)
        for level in levels.split(", ")
    }

    assert len(events) > 20
    assert {(level.replace("exception", "error"), event) for level, event in events} <= described
