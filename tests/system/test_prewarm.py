"""Archives that are built before a client requests them, by the running program."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import git_repositories
from tests.git_repositories import GitRepository
from tests.parts.git_host import REPO, GitHost, serving_git
from tests.parts.webhooks import signed
from tests.system.client import Answer, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

SECRET = "s3cret-of-the-hook-of-the-lab"  # noqa: S105 - only of this test


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    stack: Stack
    host: GitHost
    repository: GitRepository

    def push(self, text: str) -> str:
        """Return a commit that the branch main has from now on."""
        files = {**git_repositories.SIMPLE, "news": text.encode()}
        return self.repository.commit(files)

    def branch(self, name: str, node: str) -> str:
        """Return a new branch. The web process has not looked it up yet, as it may have main."""
        self.repository.git("branch", name, node)
        return name

    def announce(self, node: str, *, branch: str = "main", secret: str = SECRET) -> Answer:
        body = json.dumps({"repo": REPO, "branch": branch, "node": node}).encode()
        headers = signed(body, secret=secret)
        return fetch(f"{self.stack.public}/hooks/lab", method="POST", headers=headers, body=body)

    def url(self, node: str, query: str = "") -> str:
        base = f"{self.stack.public}/archiver/lab/{REPO}/{node}"
        return f"{base}?{query}" if query else base

    def status_url(self, task: str) -> str:
        return f"{self.stack.public}/archiver/status/{task}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serving_git(tmp_path_factory.mktemp("git")) as host:
        repository = host.create()
        repository.commit(git_repositories.SIMPLE)
        folder = tmp_path_factory.mktemp("stack")
        settings = {
            "ARCHIVER_SOURCES__LAB__KIND": "git",
            "ARCHIVER_SOURCES__LAB__URL_TEMPLATE": host.template,
            "ARCHIVER_PREWARM__MAIN__SOURCE": "lab",
            "ARCHIVER_PREWARM__MAIN__REPOS": json.dumps([REPO]),
            "ARCHIVER_PREWARM__MAIN__BRANCHES": '["main"]',
            "ARCHIVER_PREWARM__MAIN__SUFFIXES": '["tar.gz", "zip"]',
            "ARCHIVER_HOOKS__LAB__KIND": "standard",
            "ARCHIVER_HOOKS__LAB__SOURCE": "lab",
            "ARCHIVER_HOOKS__LAB__SECRET": SECRET,
            "ARCHIVER_DATA_DIR": str(folder / "data"),
        }
        template = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"
        with (
            servers(folder, template=template, settings=settings) as stack,
            stack.web(),
            stack.worker(),
        ):
            yield Lab(stack=stack, host=host, repository=repository)


def test_a_push_is_a_hit_in_every_region_before_the_first_client_asks(lab: Lab) -> None:
    node = lab.push("one")
    answer = lab.announce(node)
    assert answer.status == 202, answer
    for archive in answer.json["archives"]:
        ended = poll(lab.status_url(archive["task"]), stored)[-1]
        assert set(ended["s3_urls"]) == set(REGIONS)
    for query in ("", "suffix=zip"):
        assert fetch(lab.url(node, query)).status == 302
    assert fetch(lab.url(lab.branch("fresh", node))).headers["Archiver-Node"] == node
    again = lab.announce(node)
    assert (again.status, {each["outcome"] for each in again.json["archives"]}) == (200, {"hit"})


def test_a_push_that_the_host_does_not_show_yet_is_built_once_it_does(lab: Lab) -> None:
    hidden = lab.repository.git("commit-tree", "-m", "late", "main^{tree}").strip()
    objects = lab.repository.path / "objects" / hidden[:2]
    moved = objects / hidden[2:]
    content = moved.read_bytes()
    moved.unlink()
    (tarball, *_) = lab.announce(hidden).json["archives"]
    url = lab.status_url(tarball["task"])
    poll(url, lambda status: status["failures"] > 0)
    objects.mkdir(exist_ok=True)
    moved.write_bytes(content)
    assert poll(url, stored)[-1]["node"] == hidden


def test_a_wrong_signature_has_no_effect_and_leaves_no_secret_in_the_log(lab: Lab) -> None:
    node = lab.push("two")
    assert lab.announce(node, secret="another-secret-of-a-hook").status == 403  # noqa: S106
    assert fetch(lab.url(node), method="HEAD").status == 404
    assert SECRET not in lab.stack.logs()


def test_the_command_prewarms_what_its_input_names(lab: Lab) -> None:
    node = lab.push("three")
    lines = f"lab/{REPO}@{lab.branch('batch', node)}\nlab/{REPO}@{node}\nlab/{REPO}@nowhere\n"
    command = [sys.executable, "-m", "archiver", "prewarm", "-", "--suffix", "tar.zst", "--json"]
    result = subprocess.run(
        [*command, "--server", lab.stack.public],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    first, second, third = (each["outcome"] for each in documents[:3])
    assert ({first, second}, third) == ({"created", "joined"}, "problem")
    assert result.returncode == 3
    assert poll(lab.status_url(documents[0]["task"]), stored)
