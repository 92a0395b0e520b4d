"""Requests for archives with submodules and LFS files, wherever an archive is named."""

from collections.abc import Iterator
from itertools import combinations
from urllib.parse import parse_qsl, urlsplit

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.model import parse_task_id
from archiver.testing import FakeSource
from tests.memory_world import ASH, World
from tests.web.client import CONFIG, DEFAULT, PUBLIC_URL, Client, client

FILE = f"/get/hgmo/{ASH}/default.tar.gz"
FLAGS = ("", "submodules=1", "lfs=1", "submodules=1&lfs=1")
MARKS = {"": "", "submodules=1": "~submodules", "lfs=1": "~lfs"}
MARKS["submodules=1&lfs=1"] = "~lfs~submodules"

TOKEN = create_token()
ADMIN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def web() -> Iterator[Client]:
    """A client of an application whose source completes, and whose archives a token may operate."""
    world = World()
    world.source.completes = True
    policy = Policy(
        sources={world.source.name: SourcePolicy()},
        grants={"ops": Grant(scope=Scope.ADMIN, repos=[ASH])},
        names={hash_token(TOKEN): "ops"},
    )
    with client(world, access=Access(policy)) as speaking:
        yield speaking


def task_of(web: Client, target: str) -> str:
    """Return the path of the status of the task that a request creates or joins."""
    response = web.get(target, prefer="respond-async")
    assert response.status == 202
    return response.headers["location"].removeprefix(PUBLIC_URL)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("target", (DEFAULT, FILE, f"{FILE}.sha256", f"/archiver/hgmo/{ASH}"))
def test_flags_name_another_archive(web: Client, target: str, flags: str) -> None:
    rev = "rev=default&" if target.endswith(ASH) else ""
    status = task_of(web, f"{target}?{rev}{flags}")
    node = f"{web.world.node}{MARKS[flags]}"
    assert status == f"/archiver/status/hgmo:projects:ash:-:{node}:-:tar.gz"


@pytest.mark.parametrize("target", (DEFAULT, FILE, f"{FILE}.sha256"))
@pytest.mark.parametrize("flag", ("submodules", "lfs"))
@pytest.mark.parametrize("value", ("", "0", "true", "yes", "11", "%F0%9F%90%99"))
def test_the_only_value_of_a_flag_is_1(web: Client, target: str, flag: str, value: str) -> None:
    response = web.get(f"{target}?{flag}={value}")
    assert (response.status, response.code) == (400, "invalid_request")
    assert (response.json["parameter"], response.json["allowed"]) == (flag, "1")
    assert web.world.untouched


@pytest.mark.parametrize("target", (DEFAULT, FILE, f"{FILE}.sha256"))
@pytest.mark.parametrize(
    ("query", "flag"), (("submodules=1", "submodules"), ("lfs=1", "lfs"), (FLAGS[3], "submodules"))
)
@pytest.mark.parametrize("method", ("GET", "HEAD"))
def test_a_source_that_is_not_of_kind_git_refuses_them(
    web: Client, target: str, query: str, flag: str, method: str
) -> None:
    web.world.source.completes = False
    response = web.request(method, f"{target}?{query}")
    assert response.status == 400
    if method == "GET":
        assert (response.code, response.json["parameter"]) == ("invalid_request", flag)
        assert f"{flag}=1 needs a source of kind git" in response.json["detail"]
    assert web.world.untouched


def test_archives_that_differ_in_a_flag_share_no_answer(web: Client) -> None:
    targets = [f"{DEFAULT}?{flags}" for flags in FLAGS]
    tasks = {task_of(web, target) for target in targets}
    assert len(tasks) == len(web.world.engine.tasks) == 4
    web.work()
    for _ in range(3):  # from the second time on, from memory
        responses = [web.get(target) for target in targets]
        for header in ("location", "link"):
            assert len({each.headers[header] for each in responses}) == 4
        paths = [urlsplit(each.headers["location"]).path for each in responses]
        assert len({path.rpartition("/")[2] for path in paths}) == 4


@pytest.mark.parametrize("pair", (*combinations(FLAGS, 2),))
def test_an_archive_is_no_hit_for_other_flags(web: Client, pair: tuple[str, str]) -> None:
    stored, other = (f"{DEFAULT}?{flags}" for flags in pair)
    task_of(web, stored)
    web.work()
    assert (web.head(stored).status, web.head(other).status) == (302, 404)
    assert web.get(other).status == 202


@pytest.mark.parametrize("flags", FLAGS)
def test_the_canonical_url_names_the_same_archive(web: Client, flags: str) -> None:
    task = task_of(web, f"{DEFAULT}?subdir=testing&suffix=tar.gz&{flags}")
    archive = parse_task_id(task.rpartition("/")[2])
    assert archive
    url = urlsplit(CONFIG.canonical_url(archive))
    expected = {"suffix": "tar.gz", "subdir": "testing", **dict(parse_qsl(flags))}
    assert dict(parse_qsl(url.query)) == expected
    assert task_of(web, f"{url.path}?{url.query}") == task


@pytest.mark.parametrize("target", (DEFAULT, FILE))
def test_a_waiting_client_is_led_to_the_same_archive(hasty: Client, target: str) -> None:
    hasty.world.source.completes = True
    response = hasty.get(f"{target}?lfs=1&wait=80&submodules=1")
    location = urlsplit(response.headers["location"])
    assert (response.status, location.path) == (302, target)
    assert dict(parse_qsl(location.query)).items() >= {"lfs": "1", "submodules": "1"}.items()
    (task,) = hasty.world.engine.tasks.values()
    assert (task.archive.submodules, task.archive.lfs) == (True, True)


@pytest.mark.parametrize("flags", FLAGS[1:])
def test_on_miss_redirect_does_not_lead_to_the_plain_archive_of_the_host(
    web: Client, flags: str
) -> None:
    plain = web.get(f"{DEFAULT}?on_miss=redirect")
    assert plain.status == 302
    response = web.get(f"{DEFAULT}?on_miss=redirect&{flags}")
    assert (response.status, response.code) == (503, "not_ready_yet")
    assert len(web.world.engine.tasks) == 2


def test_each_archive_is_purged_and_pinned_by_its_own_name(web: Client) -> None:
    tasks = {flags: task_of(web, f"{DEFAULT}?{flags}") for flags in FLAGS}
    web.work()
    pinned = web.request("PUT", f"{tasks['lfs=1']}/pin?reason=x", **ADMIN)
    assert pinned.status == 204
    assert [web.get(task).result["pinned"] for task in tasks.values()] == [
        *(False, False, True, False)
    ]
    node = f"/archiver/hgmo/{ASH}/{web.world.node}"
    purged = {
        flags: web.request("DELETE", f"{node}?{flags}&reason=x", **ADMIN).status
        for flags in ("submodules=1", "lfs=1")
    }
    assert purged == {"submodules=1": 204, "lfs=1": 409}
    found = {flags: web.head(f"{node}?{flags}").status for flags in FLAGS}
    assert found == {"": 302, "submodules=1": 404, "lfs=1": 302, "submodules=1&lfs=1": 302}


def test_a_purge_takes_no_other_value_of_a_flag_either(web: Client) -> None:
    target = f"/archiver/hgmo/{ASH}/{web.world.node}?lfs=0&reason=x"
    response = web.request("DELETE", target, **ADMIN)
    assert (response.code, response.json["parameter"]) == ("invalid_request", "lfs")


def test_a_source_that_is_not_of_kind_git_has_no_complete_archive_to_purge() -> None:
    policy = Policy(
        sources={"hgmo": SourcePolicy()},
        grants={"ops": Grant(scope=Scope.ADMIN, repos=[ASH])},
        names={hash_token(TOKEN): "ops"},
    )
    with client(World(source=FakeSource()), access=Access(policy)) as web:
        target = f"/archiver/hgmo/{ASH}/{web.world.node}?submodules=1&reason=x"
        response = web.request("DELETE", target, **ADMIN)
        assert (response.status, response.code) == (404, "absent")
