"""``DELETE`` on the URL of an archive."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.model import Region
from archiver.web.access_log import KNOWN_METHODS
from archiver.web.app import ROUTES
from tests.memory_world import ASH, World
from tests.web.client import Client, ClientResponse, client

TOKEN = create_token()
ADMIN = {"authorization": f"Bearer {TOKEN}"}
EAST = Region("us-east-1")


@pytest.fixture
def web() -> Iterator[Client]:
    """A client of an application with one stored archive, which the token may operate."""
    world = World()
    policy = Policy(
        sources={world.source.name: SourcePolicy()},
        grants={"ops": Grant(scope=Scope.ADMIN, repos=[ASH])},
        names={hash_token(TOKEN): "ops"},
    )
    with client(world, access=Access(policy)) as speaking:
        speaking.get(address(speaking))
        speaking.work()
        yield speaking


def address(web: Client, *, rev: str | None = None, repo: str = ASH) -> str:
    return f"/archiver/hgmo/{repo}/{rev or web.world.node}"


def delete(web: Client, target: str, **headers: str) -> ClientResponse:
    return web.request("DELETE", target, **(headers or ADMIN))


def test_a_purged_archive_is_absent_at_once_although_its_redirect_was_remembered(
    web: Client,
) -> None:
    for _ in range(3):
        assert web.get(address(web)).status == 302
    with capture_logs() as lines:
        response = delete(web, f"{address(web)}?reason=a%20key%20leaked")
    assert (response.status, response.body) == (204, b"")
    assert web.head(address(web)).status == 404
    (line,) = (line for line in lines if line["event"] == "archive.purged")
    assert (line["principal"], line["reason"]) == ("token:ops", "a key leaked")
    (finished,) = (line for line in lines if line["event"] == "request.finished")
    assert (finished["method"], finished["route"], finished["code"]) == ("DELETE", "purge", 204)


def test_an_archive_that_no_region_has_is_absent(web: Client) -> None:
    response = delete(web, f"{address(web)}?suffix=zip&reason=x")
    assert (response.status, response.code) == (404, "absent")
    assert delete(web, f"{address(web)}?reason=x").status == 204
    assert delete(web, f"{address(web)}?reason=x").code == "absent"


def test_only_the_named_archive_is_purged(web: Client) -> None:
    web.get(f"{address(web)}?subdir=testing/mozharness&suffix=tar")
    web.work()
    named = f"/archiver/hgmo/{ASH}?rev={web.world.node}&subdir=testing/mozharness&suffix=tar"
    assert delete(web, f"{named}&reason=x").status == 204
    assert web.head(named).status == 404
    assert web.get(address(web)).status == 302


@pytest.mark.parametrize("rev", ("default", "0123456789ab", "f" * 39))
def test_a_rev_that_is_not_a_full_node_is_refused(web: Client, rev: str) -> None:
    response = delete(web, f"{address(web, rev=rev)}?reason=x")
    assert (response.status, response.json["parameter"]) == (400, "rev")


@pytest.mark.parametrize("reason", (None, "", " ", "a\nb", "x" * 501))
def test_a_purge_needs_a_reason(web: Client, reason: str | None) -> None:
    query = "" if reason is None else f"?reason={quote(reason)}"
    response = delete(web, f"{address(web)}{query}")
    assert (response.status, response.json["parameter"]) == (400, "reason")
    assert web.get(address(web)).status == 302


def test_a_region_that_does_not_answer_is_named(web: Client) -> None:
    web.world.storage.down.add(EAST)
    response = delete(web, f"{address(web)}?reason=x")
    assert (response.status, response.code) == (503, "purge_unfinished")
    assert EAST in response.json["detail"]
    assert response.headers["retry-after"]
    web.world.storage.down.clear()
    later = web.get(address(web))
    assert (later.status, later.code) == (503, "purge_unfinished")
    assert delete(web, f"{address(web)}?reason=x").status == 204
    assert web.get(address(web)).status == 202


def test_a_token_for_other_repos_is_refused(web: Client) -> None:
    response = delete(web, f"{address(web, repo='projects/other')}?reason=x")
    assert (response.status, response.code) == (403, "forbidden")
    anonymous = web.request("DELETE", f"{address(web)}?reason=x")
    assert (anonymous.status, anonymous.code) == (401, "unauthenticated")
    assert web.get(address(web)).status == 302


def pin_of(web: Client) -> str:
    return f"/archiver/status/{web.world.archive().task_id}/pin"


def test_a_pinned_archive_is_purged_only_after_it_was_unpinned(web: Client) -> None:
    status = pin_of(web).removesuffix("/pin")
    assert web.get(status).result["pinned"] is False
    assert web.request("PUT", f"{pin_of(web)}?reason=a%20release", **ADMIN).status == 204
    assert web.get(status).result["pinned"] is True
    refused = delete(web, f"{address(web)}?reason=x")
    assert (refused.status, refused.code) == (409, "pinned")
    assert delete(web, pin_of(web)).status == 204
    assert delete(web, pin_of(web)).code == "absent"
    assert web.get(status).result["pinned"] is False
    assert delete(web, f"{address(web)}?reason=x").status == 204


def test_only_an_existing_archive_is_pinned_and_with_a_reason(web: Client) -> None:
    assert web.request("PUT", pin_of(web), **ADMIN).json["parameter"] == "reason"
    missing = f"/archiver/status/{web.world.archive(suffix='zip').task_id}/pin?reason=x"
    assert web.request("PUT", missing, **ADMIN).code == "absent"
    assert web.request("PUT", "/archiver/status/x/pin?reason=x", **ADMIN).code == "no_such_task"
    assert web.request("PUT", f"{pin_of(web)}?reason=x").status == 401
    web.world.storage.down.add(EAST)
    assert web.request("PUT", f"{pin_of(web)}?reason=x", **ADMIN).code == "storage_unavailable"


def test_the_methods_of_all_routes_label_metrics() -> None:
    assert {method for route in ROUTES for method in route.methods} == KNOWN_METHODS
