"""The reference names everything there is, and the notes on decisions are in order."""

import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from archiver.cli import main
from archiver.settings import RegionSettings, Settings, SourceSettings
from archiver.telemetry import METRICS
from archiver.web.app import ROUTES
from archiver.web.problems import statuses

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
EVENT = re.compile(
    r"""(?:log|log\.bind\(.*?\))\.(?:debug|info|warning|error|exception)\(\s*"([a-z_.]+)"""
)


def _settings(model: type[BaseModel], path: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _settings(kind, f"{path}{name}.")
        elif name not in {"regions", "sources"}:
            names.append(f"{path}{name}")
    return names


ALL_SETTINGS = (
    *_settings(Settings),
    *_settings(RegionSettings, "regions.NAME."),
    *_settings(SourceSettings, "sources.NAME."),
)


@pytest.mark.parametrize("setting", ALL_SETTINGS)
def test_every_setting_is_described(setting: str) -> None:
    assert f"| `{setting}` |" in REFERENCE


def test_no_setting_is_described_that_is_not_there() -> None:
    described = set(re.findall(r"^\| `([a-zA-Z_.]+)` \| .* \| .* \|$", REFERENCE, re.MULTILINE))
    sections = ("server.", "engine.", "regions.", "sources.", "worker.", "log.")

    assert {name for name in described if name.startswith(sections)} <= set(ALL_SETTINGS)


@pytest.mark.parametrize("code", sorted(statuses()))
def test_every_error_code_is_described_with_its_status(code: str) -> None:
    assert re.search(rf"^\| `{code}`( ↻)? \| {statuses()[code]} \|", REFERENCE, re.MULTILINE)


def test_every_metric_is_described() -> None:
    names = {sample.name for metric in vars(METRICS).values() for sample in metric.describe()}

    assert names
    assert [name for name in sorted(names) if f"| `{name}" not in REFERENCE] == []


def test_every_route_is_described() -> None:
    paths = {re.sub(r"\{.*", "", route.path).rstrip("/") for route in ROUTES}

    assert [path for path in sorted(paths) if path not in REFERENCE] == []


def test_every_command_is_described() -> None:
    assert isinstance(main, click.Group)
    assert [name for name in main.commands if f"`archiver {name}" not in REFERENCE] == []


def test_every_log_event_is_described() -> None:
    sources = (path.read_text() for path in (ROOT / "src").rglob("*.py"))
    events = {event for text in sources for event in EVENT.findall(text)}

    assert len(events) > 20
    assert [event for event in sorted(events) if f"`{event}`" not in REFERENCE] == []


def test_decisions_are_numbered_without_a_gap_and_hold_their_three_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in decisions] == [*range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text()
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences")), path


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        (path.name, target)
        for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / target).exists()
    ]

    assert broken == []
