"""``POST /archiver/tasks``: batches of archives to build later."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.limiter import ClientLimits
from archiver.model import EnqueueOutcome
from archiver.tasks import TaskState, Urgency
from archiver.web.api.prewarm import BODY_MAX_BYTES, REQUESTS_MAX
from tests.memory_world import ASH, World
from tests.web.client import PUBLIC_URL, Client, client

TOKENS = {name: create_token() for name in ("creator", "reader", "other")}
POLICY = Policy(
    sources={"hgmo": SourcePolicy(anonymous=Scope.READ)},
    grants={
        "creator": Grant(scope=Scope.CREATE),
        "reader": Grant(scope=Scope.READ),
        "other": Grant(scope=Scope.CREATE, repos=["projects/birch"]),
    },
    names={hash_token(token): name for name, token in TOKENS.items()},
)
TARGET = "/archiver/tasks"


@pytest.fixture
def web() -> Iterator[Client]:
    with client(World()) as web:
        yield web


def ash(**changes: object) -> dict[str, object]:
    return {"source": "hgmo", "repo": ASH, "rev": "default", **changes}


def prewarm(web: Client, *requests: object, token: str = "") -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {TOKENS[token]}"} if token else {}
    response = web.post_json(TARGET, {"requests": requests}, **headers)
    assert response.status == 200, response.body
    results: list[dict[str, Any]] = response.json["results"]
    assert len(results) == len(requests)
    return results


def codes(results: Sequence[dict[str, Any]]) -> list[str]:
    return [each.get("problem", {}).get("code") or each["outcome"] for each in results]


def test_each_request_has_a_result_at_its_place(web: Client) -> None:
    zip_, missing = ash(suffix="zip"), ash(rev="nowhere")
    web.get(f"/archiver/hgmo/{ASH}/default?suffix=zip")
    web.work()

    results = prewarm(web, ash(), missing, zip_, ash())

    assert codes(results) == ["created", "unknown_rev", "hit", "joined"]
    archive = web.world.archive()
    assert results[0] == {
        "outcome": "created",
        "task": archive.task_id,
        "source": "hgmo",
        "repo": ASH,
        "node": web.world.node,
        "subdir": "",
        "suffix": "tar.gz",
        "submodules": False,
        "lfs": False,
        "status_url": f"{PUBLIC_URL}/archiver/status/{archive.task_id}",
    }
    assert results[1]["problem"]["status"] == 404


def test_the_task_has_no_urgency_until_a_client_requests_its_archive(web: Client) -> None:
    archive, engine = web.world.archive(), web.world.engine
    prewarm(web, ash())
    assert engine.urgencies[archive.key] is Urgency.LATER
    assert engine.clients[archive.key] == "prewarm:192.0.2.1"

    assert web.get(f"/archiver/hgmo/{ASH}/default").status == 202
    assert engine.urgencies[archive.key] is Urgency.NOW
    web.work()
    assert engine.tasks[archive.key].state is TaskState.SUCCESS


def test_a_repeated_batch_changes_nothing(web: Client) -> None:
    batch = [ash(), ash(subdir="testing"), ash(suffix="zip")]
    assert codes(prewarm(web, *batch)) == ["created"] * 3
    assert codes(prewarm(web, *batch)) == ["joined"] * 3
    web.work()
    assert codes(prewarm(web, *batch)) == ["hit"] * 3
    assert len(web.world.engine.tasks) == 3


def test_an_archive_that_is_stored_does_not_count_as_used(web: Client) -> None:
    prewarm(web, ash())
    web.work()
    used: list[str] = []
    web.state.archiver.hits.add(used.append)
    assert codes(prewarm(web, ash())) == ["hit"]
    assert used == []


@pytest.mark.parametrize(
    "request_",
    (
        {},
        [],
        None,
        "hgmo/projects/ash@default",
        {"source": "hgmo", "repo": ASH},
        ash(rev=1),
        ash(lfs="1"),
        ash(suffix="tgz"),
        ash(subdir="../x"),
        ash(repo="a//b"),
        ash(source=""),
        ash(branch="default"),
        ash(rev="a\0b"),
    ),
)
def test_a_malformed_request_does_not_affect_the_others(web: Client, request_: object) -> None:
    results = prewarm(web, ash(), request_, ash(suffix="zip"))

    assert codes(results) == ["created", "invalid_request", "created"]
    assert results[1]["problem"]["allowed"]


@pytest.mark.parametrize(
    "body",
    (
        b"",
        b"[]",
        b"{}",
        b"{" * 100_000,
        b'{"requests": []}',
        b'{"requests": {}}',
        b'{"requests": [{}], "more": 1}',
        b'{"requests": [' + b"[" * 200_000,
        json.dumps({"requests": [ash()] * (REQUESTS_MAX + 1)}).encode(),
        b'{"requests": ["\xff"]}',
        json.dumps({"requests": [ash(rev="\ud800")]}).encode(),
    ),
)
def test_a_malformed_batch_is_refused_as_a_whole(web: Client, body: bytes) -> None:
    response = web.post(TARGET, body, content_type="application/json")

    if response.status == 200:  # its only request is malformed
        assert codes(response.json["results"]) == ["invalid_request"]
    else:
        assert (response.status, response.code) == (400, "invalid_request")
    assert web.world.engine.tasks == {}


def test_as_many_requests_as_are_allowed_have_results(web: Client) -> None:
    batch = [ash(subdir=f"d{number}") for number in range(REQUESTS_MAX)]
    results = prewarm(web, *batch)
    assert codes(results) == ["created"] * REQUESTS_MAX
    assert [each["subdir"] for each in results] == [each["subdir"] for each in batch]


@pytest.mark.parametrize("type_", ("", "text/plain", "application/x-www-form-urlencoded"))
def test_only_json_is_accepted(web: Client, type_: str) -> None:
    """Pages of other sites can send the other types without asking."""
    body = json.dumps({"requests": [ash()]}).encode()
    response = web.post(TARGET, body, content_type=type_)
    assert (response.status, response.code) == (415, "unsupported_media_type")
    assert web.post(TARGET, body, content_type="application/json; charset=utf-8").status == 200


def test_a_large_body_is_refused_however_it_arrives(web: Client) -> None:
    pieces = [b" " * (BODY_MAX_BYTES // 4)] * 5
    for response in (
        web.post(TARGET, *pieces, content_type="application/json"),
        web.post(TARGET, content_type="application/json", content_length=str(BODY_MAX_BYTES + 1)),
        web.post(TARGET, content_type="application/json", content_length="9" * 5000),
    ):
        assert (response.status, response.code) in {
            (413, "body_too_large"),
            (400, "invalid_request"),  # a length of thousands of digits is no length
        }


def test_a_batch_in_pieces_is_read_whole(web: Client) -> None:
    body = json.dumps({"requests": [ash()]}).encode()
    response = web.post(
        TARGET, *(body[n : n + 1] for n in range(len(body))), content_type="application/json"
    )
    assert codes(response.json["results"]) == ["created"]


@pytest.mark.parametrize(
    ("token", "results"),
    (
        ("creator", ["created", "unknown_source"]),
        ("other", ["forbidden", "unknown_source"]),
    ),
)
def test_the_permission_is_that_of_each_repo(token: str, results: list[str]) -> None:
    with client(World(), access=Access(POLICY)) as web:
        assert codes(prewarm(web, ash(), ash(source="other"), token=token)) == results


@pytest.mark.parametrize(("token", "status"), (("", 401), ("reader", 403)))
def test_a_client_that_may_only_read_prewarms_nothing(token: str, status: int) -> None:
    with client(World(), access=Access(POLICY)) as web:
        headers = {"authorization": f"Bearer {TOKENS[token]}"} if token else {}
        assert web.post_json(TARGET, {"requests": [ash()]}, **headers).status == status
        assert web.world.engine.tasks == {}


def test_tasks_of_batches_have_limits_of_their_own() -> None:
    limits = ClientLimits(open_tasks=1, tasks_per_minute=1, deferred_tasks=2)
    with client(World(limits=limits)) as web:
        results = prewarm(web, *(ash(subdir=f"d{number}") for number in range(3)))
        assert codes(results) == ["created", "created", "too_many_tasks"]
        assert results[2]["problem"]["retry_after"] > 0
        assert web.get(f"/archiver/hgmo/{ASH}/default").status == 202


def test_batches_fill_no_more_than_a_quarter_of_a_queue() -> None:
    with client(World(limits=ClientLimits(queue_max={"hgmo": 12}))) as web:
        results = prewarm(web, *(ash(subdir=f"d{number}") for number in range(4)))
        assert codes(results) == ["created"] * 3 + ["queue_full"]
        assert web.get(f"/archiver/hgmo/{ASH}/default").status == 202


def test_an_engine_that_is_away_is_a_problem_of_each_request(web: Client) -> None:
    web.world.engine.down = True
    assert codes(prewarm(web, ash(), ash(suffix="zip"))) == ["engine_unavailable"] * 2


def test_a_full_engine_joins_nothing(web: Client) -> None:
    web.world.engine.full = True
    assert codes(prewarm(web, ash())) == ["engine_full"]
    assert web.world.engine.tasks == {}


def test_a_later_request_joins_the_task_of_a_batch(web: Client) -> None:
    prewarm(web, ash())
    response = web.get(f"/archiver/hgmo/{ASH}/default")
    assert response.headers["archiver-cache"] == EnqueueOutcome.JOINED
