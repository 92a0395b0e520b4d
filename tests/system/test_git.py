"""A git host behind the running program: names of commits, formats, regions, and secrets."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests import git_repositories
from tests.git_repositories import GitRepository, create
from tests.parts.faulty_git_host import FaultyGitHost, Question, faulty_git_host, flipped
from tests.parts.git_host import REPO, GitHost, serving_git
from tests.parts.process import wait_until
from tests.parts.thorough import thorough
from tests.system.client import ended, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

TOKEN = "s3cret-t0ken-of-the-lab"  # noqa: S105 - only of this test


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running fleet, and a git host that demands a token, which the source ``lab`` has.

    ``tagged`` is an older commit than ``head``, and ``hidden`` one that no ref shows.
    """

    stack: Stack
    host: GitHost
    faulty: FaultyGitHost
    repository: GitRepository
    tagged: str
    hidden: str
    head: str

    def url(self, rev: str, query: str = "", *, source: str = "lab") -> str:
        base = f"{self.stack.public}/archiver/{source}/{REPO}/{quote(rev, safe='')}"
        return f"{base}?{query}" if query else base

    def build(self, rev: str, query: str = "") -> dict[str, Any]:
        """Request an archive, and return its status once both regions have it."""
        answer = fetch(self.url(rev, query))
        link = answer.headers["Link"] or ""
        status = answer.location if answer.status == 202 else link.partition(">")[0].strip("<")
        result = poll(status, stored)[-1]
        assert set(result["s3_urls"]) == set(REGIONS), (result, self.stack.logs()[-3000:])
        return result


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    other = create(tmp_path_factory.mktemp("other") / "repository")
    with serving_git(tmp_path_factory.mktemp("git")) as host, faulty_git_host(other) as faulty:
        host.credentials = f"x-access-token:{TOKEN}"
        repository = host.create()
        tagged = repository.commit(git_repositories.SIMPLE)
        repository.annotated_tag("v1", tagged)
        hidden = repository.unreachable_commit(git_repositories.MODES)
        head = repository.commit({**git_repositories.SIMPLE, "new": b"new\n"})
        repository.branch("topic/one", head)
        folder = tmp_path_factory.mktemp("stack")
        sources = {
            "LAB__KIND": "git",
            "LAB__URL_TEMPLATE": host.template,
            "LAB__TOKEN": TOKEN,
            "ANONYMOUS__KIND": "git",
            "ANONYMOUS__URL_TEMPLATE": host.template,
            "FAULTY__KIND": "git",
            "FAULTY__URL_TEMPLATE": faulty.template,
        }
        settings = {f"ARCHIVER_SOURCES__{name}": value for name, value in sources.items()}
        settings["ARCHIVER_DATA_DIR"] = str(folder / "data")
        template = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"
        with (
            servers(folder, template=template, settings=settings) as stack,
            stack.web(),
            stack.worker("worker-1"),
            stack.worker("worker-2"),
        ):
            yield Lab(
                stack=stack,
                host=host,
                faulty=faulty,
                repository=repository,
                tagged=tagged,
                hidden=hidden,
                head=head,
            )


@pytest.mark.parametrize(
    ("rev", "name"),
    (
        ("main", "head"),
        ("topic/one", "head"),
        ("HEAD", "head"),
        ("refs/heads/main", "head"),
        ("v1", "tagged"),
        ("refs/tags/v1", "tagged"),
    ),
)
def test_every_name_leads_to_its_commit_and_to_the_url_that_never_moves(
    lab: Lab, rev: str, name: str
) -> None:
    node = getattr(lab, name)
    lab.build(rev)

    hit = fetch(lab.url(rev))

    assert hit.status == 302
    assert hit.headers["Archiver-Node"] == node
    links = hit.headers["Link"]
    canonical = next(link for link in links.split(", ") if 'rel="canonical"' in link)
    url = canonical.partition(">")[0].strip("<")
    assert node in url
    again = fetch(url)
    assert (again.status, again.headers["Archiver-Node"]) == (302, node)
    assert again.headers["Archiver-SHA256"] == hit.headers["Archiver-SHA256"]
    assert "canonical" not in (again.headers["Link"] or "")


@pytest.mark.parametrize(
    "suffix", ("tar.gz", "zip", *thorough("tar.zst", "tar.xz", "tar.bz2", "tar"))
)
def test_every_format_has_the_same_bytes_in_both_regions(lab: Lab, suffix: str) -> None:
    result = lab.build("main", f"suffix={suffix}")

    bodies = {region: fetch(url).body for region, url in result["s3_urls"].items()}

    assert {hashlib.sha256(body).hexdigest() for body in bodies.values()} == {result["sha256"]}
    body = bodies[REGIONS[0]]
    assert len(body) == result["size"]
    if suffix == "zip":
        names = zipfile.ZipFile(io.BytesIO(body)).namelist()
    elif suffix == "tar.zst":  # Python 3.14 is the first that reads it
        assert body.startswith(b"\x28\xb5\x2f\xfd")
        return
    else:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            names = tar.getnames()
    files = lab.repository.git("ls-tree", "-r", "--name-only", lab.head).splitlines()
    assert {f"project-{lab.head}/{name}" for name in files} <= set(names)


def test_a_subdir_is_cut_from_the_mirror(lab: Lab) -> None:
    lab.build("main")
    fetched = len(lab.host.fetches)

    result = lab.build("main", "subdir=src/lib")

    with tarfile.open(fileobj=io.BytesIO(fetch(result["s3_urls"][REGIONS[0]]).body)) as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {f"project-{lab.head}/src/lib/deep/er/leaf.txt"}
    assert len(lab.host.fetches) - fetched <= 1  # the other worker may not have the commit


def test_a_status_describes_the_archive(lab: Lab) -> None:
    result = lab.build("v1")

    assert (result["state"], result["error"]) == ("SUCCESS", None)
    assert result["node"] == lab.tagged
    assert result["src_url"] == f"{lab.host.url}/{REPO}.git#{lab.tagged}"
    assert result["bytes_done"] > 0
    assert result["attempt"] == 1
    assert result["links_outside"] == 0
    assert result["regions_missing"] == []


@pytest.mark.thorough
def test_digits_of_a_commit_without_a_ref_are_found_once_it_is_stored(lab: Lab) -> None:
    digits = lab.hidden[:12]

    before = fetch(lab.url(digits))
    lab.build(lab.hidden)
    wait_until(lambda: fetch(lab.url(digits)).status == 302, what="the end of a remembered 404")
    after = fetch(lab.url(digits))

    assert (before.status, before.json["code"]) == (404, "unknown_rev")
    assert "full id" in before.json["detail"]
    assert after.headers["Archiver-Node"] == lab.hidden


def test_digits_of_a_branch_are_its_commit(lab: Lab) -> None:
    lab.build("main")

    assert fetch(lab.url(lab.head[:12])).headers["Archiver-Node"] == lab.head


def test_a_private_repository_is_absent_without_a_token(lab: Lab) -> None:
    for rev in ("main", lab.head):
        answer = fetch(lab.url(rev, source="anonymous"))
        assert (answer.status, answer.json["code"]) == (404, "unknown_repo")


@pytest.mark.parametrize(
    ("rev", "query", "code"),
    (("f" * 40, "", "unknown_rev"), ("main", "subdir=no/such", "unknown_subdir")),
)
def test_a_commit_or_subdir_that_the_worker_does_not_find_is_a_404(
    lab: Lab, rev: str, query: str, code: str
) -> None:
    accepted = fetch(lab.url(rev, query))
    if accepted.status == 202:
        result = poll(accepted.location, ended)[-1]
        assert result["error"]["code"] == code

    wait_until(lambda: fetch(lab.url(rev, query)).status == 404, what="a remembered failure")
    assert fetch(lab.url(rev, query)).json["code"] == code


def test_the_token_is_sent_and_is_in_no_log(lab: Lab) -> None:
    lab.build("main")
    fetch(lab.url("main", source="anonymous"))

    authorized = [request for request in lab.host.requests if "authorization" in request.headers]

    assert authorized
    assert not any(request.status == 401 for request in authorized)
    assert all("authorization" in request.headers for request in lab.host.fetches)
    assert lab.stack.lines("request.finished")
    assert lab.stack.lines("task.succeeded")
    logs = lab.stack.logs()
    assert TOKEN not in logs
    for request in authorized:
        assert request.headers["authorization"].partition(" ")[2] not in logs


@pytest.mark.thorough
def test_workers_survive_a_broken_pack_and_build_the_archive_from_the_next_one(lab: Lab) -> None:
    node = lab.faulty.repository.commit(git_repositories.SIMPLE)
    lab.faulty.faults = {Question.FETCH: flipped(50)}
    status = fetch(lab.url(node, source="faulty")).location
    seen = poll(status, lambda result: result["state"] == "RETRY")[-1]
    assert seen["error"]["code"] == "bad_pack"
    lab.faulty.faults = {}

    assert poll(status, ended)[-1]["state"] == "SUCCESS"
    assert '"code": "bad_pack"' in lab.stack.logs()
