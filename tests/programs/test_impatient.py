"""Clients that time out early, follow few redirects or begin with HEAD (`make clients`)."""

import sys
from pathlib import Path

import pytest

from tests.programs.conftest import HOLD_S, Projects, got_503
from tests.programs.project import BRIEF, LONG, paste, sha256_of, shell
from tests.system.stack import Stack

pytestmark = pytest.mark.programs

DEBIANS_PYTHON = "/usr/bin/python3"

CLIENTS = {
    "ansible": ("yaml", "ansible-playbook"),
    "urllib": ("python", DEBIANS_PYTHON),
    "requests": ("python", DEBIANS_PYTHON),
    "urllib3": ("python", DEBIANS_PYTHON),
    "httpx": ("python", DEBIANS_PYTHON),
    "aiohttp": ("python", sys.executable),
    "Java": ("java", "java"),
    "LWP": ("perl", "perl"),
}
"""The language of each section's snippet, and the program that runs it."""

FILE_NAMES = {"yaml": "get.yaml", "python": "get.py", "java": "Get.java", "perl": "get.pl"}


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
@pytest.mark.parametrize("client", CLIENTS)
def test_the_example_saves_a_missing_archive(
    client: str, seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    language, program = CLIENTS[client]
    project = projects(seconds)
    text = project.snippet(client, language).replace("wait=32", f"wait={4 * HOLD_S}")
    (tmp_path / FILE_NAMES[language]).write_text(text)

    paste(f"{program} {FILE_NAMES[language]}", folder=tmp_path)

    assert sha256_of(tmp_path / "ash.tar.gz") == project.sha256()
    assert got_503(stack, project) or seconds == BRIEF


def get(program: str, redirects: int) -> str:
    """Return a command of *program* for ``$url`` that needs at most *redirects* redirects."""
    url = f"$url?wait={redirects * HOLD_S}"
    return {
        "urllib3": f"""{DEBIANS_PYTHON} -c 'import sys, urllib3
print(urllib3.PoolManager().request("GET", sys.argv[1]).status)' {url}""",
        "HTTP::Tiny": f"""perl -MHTTP::Tiny -e '
print HTTP::Tiny->new->get($ARGV[0])->{{status}}, "\\n"' {url}""",
        "LWP": f"""perl -MLWP::UserAgent -e '
print LWP::UserAgent->new->get($ARGV[0])->code, "\\n"' {url}""",
    }[program]


@pytest.mark.parametrize(("program", "redirects"), (("urllib3", 3), ("HTTP::Tiny", 5), ("LWP", 7)))
def test_a_short_wait_needs_few_redirects_and_ends_in_a_503_or_the_archive(
    program: str, redirects: int, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    project = projects(LONG)
    url = f"url={project.server}/get/hgmo/{project.repo}/{project.file_name}"
    command = f"{url}; {get(program, redirects)}"

    statuses = [paste(command, folder=tmp_path).strip()]
    while statuses[-1] == "503" and len(statuses) < LONG:
        statuses.append(paste(command, folder=tmp_path).strip())

    assert {*statuses[:-1]} <= {"503"}
    assert statuses[-1] == "200"
    assert got_503(stack, project)


def test_a_head_finds_an_archive_that_an_earlier_request_built(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(BRIEF)
    url = f"{project.server}/get/hgmo/{project.repo}/{project.file_name}"
    assert shell(f"curl --fail --location --head {url}", folder=tmp_path).returncode == 22

    printed = paste(project.snippet("Impatient clients"), folder=tmp_path)

    length = len(project.hgweb.archive(project.repo, project.node, "tar.gz"))
    assert f"content-length: {length}" in printed.lower()
