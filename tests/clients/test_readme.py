"""The requests of the README, pasted into a shell: `make clients`."""

import re
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Projects
from tests.clients.project import BRIEF, digest, paste

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.*)$|^\.venv/bin/(archiver get .*)$", README, re.MULTILINE)


@pytest.mark.programs
def test_what_the_readme_has_people_type_does_what_it_says(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(BRIEF)
    text = "\n".join(curl or f"{sys.executable} -m {get}" for curl, get in COMMANDS)
    text = text.replace("http://127.0.0.1:8010", project.server).replace(
        "projects/ash", project.repo
    )

    said = paste(text, folder=tmp_path, env={"ARCHIVER_URL": project.server})

    assert "202 Accepted" in said
    assert '"state":' in said
    assert "default.tar.gz: OK" in said
    assert {digest(path) for path in tmp_path.glob("*.tar.gz")} == {project.digest()}
