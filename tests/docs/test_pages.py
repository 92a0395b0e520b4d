"""All pages: links, commands, configurations, line lengths, the map, and the decisions."""

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiver.cli import main
from archiver.settings import load

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("deploy/*.md")]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(path: Path, language: str) -> list[str]:
    code = rf"^ *```{language}\n(.*?)^ *```$"
    return re.findall(code, path.read_text(), re.MULTILINE | re.DOTALL)


COMMANDS = {
    command
    for path in PAGES
    for block in _blocks(path, "sh")
    for command in re.findall(
        r"^(?:\.?venv/bin/)?archiver ([a-z]+(?: (?:check|show|rebuild|set-replicas))?)",
        block,
        re.MULTILINE,
    )
}
CONFIGURATIONS = [
    pytest.param(block, id=f"{_name(path)}-{number}")
    for path in PAGES
    for number, block in enumerate(_blocks(path, "toml"))
]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_exists(command: str) -> None:
    assert CliRunner().invoke(main, [*command.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_commands_can_be_pasted(path: Path) -> None:
    typed = re.findall(r"^\$ (.*)$", path.read_text(), re.MULTILINE)

    assert [command for command in [*typed, *_blocks(path, "sh")] if "…" in command] == []


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_configuration_is_valid(
    configuration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archiver.toml"
    path.write_text(configuration)
    monkeypatch.chdir(tmp_path)

    assert load(path).sources


def test_the_architecture_names_every_package() -> None:
    packages = {path.parent.name for path in (ROOT / "src" / "archiver").glob("*/__init__.py")}

    assert {name for name in packages if f"`{name}" not in ARCHITECTURE} == set()


def test_the_architecture_draws_the_layers_that_make_check_enforces() -> None:
    layout = re.findall(r"^## Layout\n\n```\n(.*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)[0]
    drawn = [
        re.findall(r"[a-z_]{3,}", re.sub(r"\(.*?\)", "", line[16:]))
        for line in layout.replace("\n                |", " |").splitlines()
    ]
    (contract,) = (each for each in CONTRACTS if each.get("containers") == ["archiver"])

    assert list(map(sorted, drawn)) == [sorted(layer.split(" | ")) for layer in contract["layers"]]


def test_decisions_are_numbered_without_a_gap_and_hold_their_three_parts() -> None:
    decisions = sorted((DOCS / "decisions").glob("*.md"))

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


def test_the_laws_link_to_the_files_of_their_tests() -> None:
    tests = re.findall(r"\]\((\.\./tests/[^)]*)\)", (DOCS / "laws.md").read_text())

    assert [test for test in tests if not (DOCS / test).is_file()] == []


def test_the_map_names_every_page() -> None:
    text = (DOCS / "README.md").read_text()
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}

    assert {page for page in pages if f"({page})" not in text and "decisions/" not in page} == {
        "README.md"
    }


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_lines_are_short_outside_of_tables_and_code(path: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)

    assert [line for line in prose.splitlines() if len(line) > 120 and line[0] != "|"] == []
