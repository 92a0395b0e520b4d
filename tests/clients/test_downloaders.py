"""Downloaders that come with the operating system: `make clients`."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import Projects, turned_away
from tests.clients.project import BRIEF, LONG, digest, paste, shell
from tests.system.stack import REGIONS, Stack

pytestmark = pytest.mark.programs


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
@pytest.mark.parametrize("program", ("curl", "wget"))
def test_saves_what_is_not_there_yet_under_the_name_in_its_url(
    program: str, seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    project = projects(seconds)

    paste(project.snippet(program), folder=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [project.file_name]
    assert digest(tmp_path / project.file_name) == project.digest()
    assert turned_away(stack, project) or seconds == BRIEF


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_aria2_saves_what_is_not_there_yet(
    seconds: float, projects: Projects, tmp_path: Path
) -> None:
    project = projects(seconds)

    paste(project.snippet("aria2"), folder=tmp_path)

    assert digest(tmp_path / "ash.tar.gz") == project.digest()


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_wget2_saves_what_is_not_there_yet(
    seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    """By way of a proxy, which for an S3 server is itself: so its port stands in no Host."""
    project = projects(seconds)
    in_the_other_region = f"{project.file_name}?preferred_region={REGIONS[1]}"
    text = project.snippet("wget2").replace(project.file_name, f"'{in_the_other_region}'")
    proxy = json.loads(stack.env["ARCHIVER_REGIONS"])[REGIONS[1]]["endpoint"]

    paste(text, folder=tmp_path, env={"http_proxy": proxy, "no_proxy": "127.0.0.1"})

    assert digest(tmp_path / "ash.tar.gz") == project.digest()


def test_sha256sum_checks_what_was_not_there_yet(projects: Projects, tmp_path: Path) -> None:
    project = projects(BRIEF)

    printed = paste(project.snippet("sha256sum"), folder=tmp_path)

    assert printed == f"{project.file_name}: OK\n"
    assert digest(tmp_path / project.file_name) == project.digest()


@pytest.mark.parametrize(
    ("command", "status"),
    (("curl --fail --location --remote-name", 0), ("wget", 8), ("aria2c", 22)),
)
def test_an_authorization_header_is_sent_on_to_s3_by_some(
    command: str, status: int, projects: Projects, tmp_path: Path
) -> None:
    project = projects(0)
    url = f"{project.server}/get/hgmo/{project.repo}/{project.file_name}"
    header = "--header 'Authorization: Basic bm9ib2R5OnNlY3JldA=='"

    done = shell(f"{command} {header} {url}", folder=tmp_path)

    assert done.returncode == status, (done.stdout, done.stderr)
