"""Clients with a short timeout, few redirects or a HEAD in front: `make clients`."""

import sys
from pathlib import Path

import pytest

from tests.clients.conftest import HOLD_S, Projects, turned_away
from tests.clients.project import BRIEF, LONG, digest, paste, shell
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
"""What each section's snippet is written in, and what runs it."""

FILE_NAMES = {"yaml": "get.yaml", "python": "get.py", "java": "Get.java", "perl": "get.pl"}


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
@pytest.mark.parametrize("client", CLIENTS)
def test_saves_what_is_not_there_yet(
    client: str, seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    language, program = CLIENTS[client]
    project = projects(seconds)
    text = project.snippet(client, language).replace("wait=32", f"wait={4 * HOLD_S}")
    (tmp_path / FILE_NAMES[language]).write_text(text)

    paste(f"{program} {FILE_NAMES[language]}", folder=tmp_path)

    assert digest(tmp_path / "ash.tar.gz") == project.digest()
    assert turned_away(stack, project) or seconds == BRIEF


def get(program: str, redirects: int) -> str:
    """Return how *program* asks for ``$url`` with a wait for which it follows enough redirects."""
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
def test_a_wait_for_which_few_redirects_are_enough_ends_in_a_503_or_the_archive(
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
    assert turned_away(stack, project)


def test_a_head_finds_what_a_request_had_made(projects: Projects, tmp_path: Path) -> None:
    project = projects(BRIEF)
    url = f"{project.server}/get/hgmo/{project.repo}/{project.file_name}"
    assert shell(f"curl --fail --location --head {url}", folder=tmp_path).returncode == 22

    printed = paste(project.snippet("Impatient clients"), folder=tmp_path)

    length = len(project.hgweb.archive(project.repo, project.node, "tar.gz"))
    assert f"content-length: {length}" in printed.lower()
