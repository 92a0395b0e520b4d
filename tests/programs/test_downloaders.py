"""Download programs as clients. The operating system provides them (`make clients`)."""

import json
from pathlib import Path

import pytest

from tests.programs.conftest import Projects, got_503
from tests.programs.project import BRIEF, LONG, paste, sha256_of, shell
from tests.system.stack import REGIONS, Stack

pytestmark = pytest.mark.programs


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
@pytest.mark.parametrize("program", ("curl", "wget"))
def test_a_missing_archive_is_saved_under_the_name_in_its_url(
    program: str, seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    project = projects(seconds)

    paste(project.snippet(program), folder=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [project.file_name]
    assert sha256_of(tmp_path / project.file_name) == project.sha256()
    assert got_503(stack, project) or seconds == BRIEF


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_aria2_saves_a_missing_archive(seconds: float, projects: Projects, tmp_path: Path) -> None:
    project = projects(seconds)

    paste(project.snippet("aria2"), folder=tmp_path)

    assert sha256_of(tmp_path / "ash.tar.gz") == project.sha256()


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_wget2_saves_a_missing_archive(
    seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    """The S3 server is also the HTTP proxy, because wget2 omits the port in Host."""
    project = projects(seconds)
    in_the_other_region = f"{project.file_name}?preferred_region={REGIONS[1]}"
    text = project.snippet("wget2").replace(project.file_name, f"'{in_the_other_region}'")
    proxy = json.loads(stack.env["ARCHIVER_REGIONS"])[REGIONS[1]]["endpoint"]

    paste(text, folder=tmp_path, env={"http_proxy": proxy, "no_proxy": "127.0.0.1"})

    assert sha256_of(tmp_path / "ash.tar.gz") == project.sha256()


def test_sha256sum_checks_an_archive_that_was_missing(projects: Projects, tmp_path: Path) -> None:
    project = projects(BRIEF)

    printed = paste(project.snippet("sha256sum"), folder=tmp_path)

    assert printed == f"{project.file_name}: OK\n"
    assert sha256_of(tmp_path / project.file_name) == project.sha256()


@pytest.mark.parametrize(
    ("command", "status"),
    (("curl --fail --location --remote-name", 0), ("wget", 8), ("aria2c", 22)),
)
def test_some_programs_forward_an_authorization_header_to_s3(
    command: str, status: int, projects: Projects, tmp_path: Path
) -> None:
    project = projects(0)
    url = f"{project.server}/get/hgmo/{project.repo}/{project.file_name}"
    header = "--header 'Authorization: Basic bm9ib2R5OnNlY3JldA=='"

    done = shell(f"{command} {header} {url}", folder=tmp_path)

    assert done.returncode == status, (done.stdout, done.stderr)
