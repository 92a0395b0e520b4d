"""docs/reference is complete, decisions have all their parts, and links are not broken."""

import json
import re
from pathlib import Path

import click
import pytest
from pydantic.fields import FieldInfo

from archiver.cli import main
from archiver.jetstream.faults import CHECKS
from archiver.web.app import ROUTES
from archiver.web.problems import statuses
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
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
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


@pytest.mark.parametrize("code", sorted(statuses()))
def test_every_error_code_is_described_with_its_status(code: str) -> None:
    assert re.search(
        rf"^\| `{code}`( ↻)? \| {statuses()[code]} \|", _page("errors.md"), re.MULTILINE
    )


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


def test_decisions_are_numbered_without_a_gap_and_hold_their_three_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in decisions] == [*range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text()
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences")), path


def test_links_between_documents_lead_somewhere() -> None:
    assert [link for path in PAGES for link in _broken_links(path)] == []


def _broken_links(path: Path) -> list[tuple[str, str]]:
    links = re.findall(r"\]\(([^):]*?)(?:#([^)]*))?\)", path.read_text())
    return [
        (path.name, f"{target}#{anchor}")
        for target, anchor in links
        if not _leads_somewhere((path.parent / target) if target else path, anchor)
    ]


def _leads_somewhere(page: Path, anchor: str) -> bool:
    return page.exists() and (not anchor or anchor in _anchors(page))


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_names_every_page() -> None:
    text = (ROOT / "docs" / "README.md").read_text()
    pages = {
        page.relative_to(ROOT / "docs").as_posix()
        for page in PAGES
        if ROOT / "docs" in page.parents
    }

    assert [page for page in sorted(pages) if "decisions/" not in page and page not in text] == [
        "README.md"
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_are_short_outside_of_tables_and_code(path: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)

    assert [line for line in prose.splitlines() if len(line) > 120 and line[0] != "|"] == []
