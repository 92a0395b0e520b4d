"""Runs the requests of the README and the quickstart in a shell (`make clients`)."""

import re
import sys
from pathlib import Path

import pytest

from tests.programs.conftest import Projects
from tests.programs.project import BRIEF, Project, paste, sha256_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()

CONSOLE = re.compile(r"^\$ (.*)$|^\.venv/bin/(archiver get .*)$", re.MULTILINE)
REQUEST = re.compile(r"^(curl .*)$|^\.venv/bin/(archiver get .*)$", re.MULTILINE)


def _paste(commands: list[tuple[str, str]], project: Project, folder: Path) -> str:
    text = "\n".join(curl or f"{sys.executable} -m {get}" for curl, get in commands)
    text = text.replace("http://127.0.0.1:8010", project.server)
    text = text.replace("projects/ash", project.repo)
    return paste(text, folder=folder, env={"ARCHIVER_URL": project.server})


@pytest.mark.programs
def test_the_readmes_commands_have_the_documented_results(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(BRIEF)

    printed = _paste(CONSOLE.findall(README), project, tmp_path)

    assert "202 Accepted" in printed
    assert '"state":' in printed
    assert "default.tar.gz: OK" in printed
    assert {sha256_of(path) for path in tmp_path.glob("*.tar.gz")} == {project.sha256()}


@pytest.mark.programs
def test_the_quickstarts_requests_have_the_documented_results(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(BRIEF)

    printed = _paste(REQUEST.findall(QUICKSTART), project, tmp_path)

    assert "202 Accepted" in printed
    assert (tmp_path / "default.tar.xz").stat().st_size > 0
    assert {sha256_of(path) for path in tmp_path.glob("*.tar.gz")} == {project.sha256()}
