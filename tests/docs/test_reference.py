"""The reference names everything there is, and the notes on decisions are in order."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from archiver.cli import main
from archiver.jetstream.connection_faults import CHECKS
from archiver.settings import RegionSettings, Settings, SourceSettings
from archiver.telemetry import METRICS
from archiver.web.app import ROUTES
from archiver.web.problems import statuses

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
EVENT = re.compile(
    r"""(?:log|log\.bind\(.*?\))\.(debug|info|warning|error|exception)\(\s*"([a-z_.]+)"""
)


ROW = re.compile(r"^\| `([a-zA-Z_.]+)` \| (.*?) ?\| (.*) \|$", re.MULTILINE)
SETTINGS = REFERENCE.partition("\n## Settings")[2].partition("\n## Commands")[0]
DESCRIBED = {name: (default, meaning) for name, default, meaning in ROW.findall(SETTINGS)}


def _settings(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _settings(kind, f"{path}{name}.")
        elif name not in {"regions", "sources"}:
            yield f"{path}{name}", field


ALL_SETTINGS = {
    **dict(_settings(Settings)),
    **dict(_settings(RegionSettings, "regions.NAME.")),
    **dict(_settings(SourceSettings, "sources.NAME.")),
}


def _default(field: FieldInfo) -> str | None:
    """Return how the reference writes a default; None if it tells what that comes to."""
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


@pytest.mark.parametrize("setting", ALL_SETTINGS)
def test_every_setting_is_described_as_it_describes_itself(setting: str) -> None:
    field = ALL_SETTINGS[setting]
    default, meaning = DESCRIBED[setting]

    assert meaning == field.description
    assert default == _default(field) or field.default_factory


def test_no_setting_is_described_that_is_not_there() -> None:
    sections = ("server.", "engine.", "regions.", "sources.", "worker.", "log.")

    assert {name for name in DESCRIBED if name.startswith(sections)} <= ALL_SETTINGS.keys()


@pytest.mark.parametrize("code", sorted(statuses()))
def test_every_error_code_is_described_with_its_status(code: str) -> None:
    assert re.search(rf"^\| `{code}`( ↻)? \| {statuses()[code]} \|", REFERENCE, re.MULTILINE)


def test_every_metric_is_described_as_it_describes_itself() -> None:
    samples = [sample for metric in vars(METRICS).values() for sample in metric.describe()]
    rows = re.findall(
        r"^\| `(archiver_\w+?)(?:_total)?` \| .* \| (.*) \|$", REFERENCE, re.MULTILINE
    )

    assert samples
    assert {(sample.name, sample.documentation) for sample in samples} == set(rows)


def test_every_route_is_described() -> None:
    paths = {re.sub(r"\{.*", "", route.path).rstrip("/") for route in ROUTES}

    assert [path for path in sorted(paths) if path not in REFERENCE] == []


def test_every_command_is_described() -> None:
    assert isinstance(main, click.Group)
    assert [name for name in main.commands if f"`archiver {name}" not in REFERENCE] == []


def test_every_log_event_is_described_with_its_level() -> None:
    sources = (path.read_text() for path in (ROOT / "src").rglob("*.py"))
    events = {found for text in sources for found in EVENT.findall(text)}
    rows = re.findall(r"^\| (`.+?`) \| ([a-z, ]+) \|", REFERENCE, re.MULTILINE)
    described = {
        (level, event)
        for names, levels in rows
        for event in re.findall(r"[a-z_.]+", names)
        for level in levels.split(", ")
    }

    assert len(events) > 20
    assert {(level.replace("exception", "error"), event) for level, event in events} <= described


def test_every_reason_of_the_engine_is_described_with_its_check() -> None:
    assert [f"| `{reason}` | {check} |" in REFERENCE for reason, check in CHECKS.items()] == [
        True for _ in CHECKS
    ]


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
