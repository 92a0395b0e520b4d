"""Every error becomes a problem, and the text of an unexpected one is not shown."""

import inspect

import pytest
from structlog.testing import capture_logs

from archiver import errors
from archiver.errors import ArchiverError
from archiver.model import Node
from archiver.testing import FakeSource
from archiver.web.problems import STATUSES
from tests.memory_world import World
from tests.web.client import DEFAULT, Client, client


def test_a_problem_has_all_that_rfc_9457_names(web: Client) -> None:
    response = web.get("/archiver/hgmo/nowhere/default", x_request_id="r-1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json == {
        "type": "urn:archiver:problem:unknown_repo",
        "title": "Unknown repo",
        "status": 404,
        "detail": "hgmo has no repository nowhere",
        "code": "unknown_repo",
        "request_id": "r-1",
    }


def test_every_code_of_the_tree_has_a_status() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if hasattr(c, "code")]
    assert {c.code for c in classes} <= STATUSES.keys()
    assert set(STATUSES.values()) == {
        *(400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 429, 500, 502, 503, 504)
    }


@pytest.mark.parametrize(
    ("code", "status"),
    (
        ("invalid_request", 400),
        ("unauthenticated", 401),
        ("forbidden", 403),
        ("unknown_source", 404),
        ("unknown_repo", 404),
        ("unknown_rev", 404),
        ("unknown_subdir", 404),
        ("empty_tree", 404),
        ("absent", 404),
        ("no_such_route", 404),
        ("method_not_allowed", 405),
        ("source_unavailable", 502),
        ("source_timeout", 504),
        ("source_busy", 503),
        ("source_refused", 502),
        ("corrupt_archive", 502),
        ("wrong_node", 502),
        ("storage_unavailable", 503),
        ("engine_unavailable", 503),
        ("engine_full", 503),
        ("too_many_tasks", 429),
        ("too_many_new_tasks", 429),
        ("too_many_lookups", 429),
        ("queue_full", 503),
        ("internal_error", 500),
    ),
)
def test_a_code_has_its_status(code: str, status: int) -> None:
    assert STATUSES[code] == status


@pytest.mark.parametrize(
    "error",
    (errors.UnknownSubdir, errors.SuffixRefused, errors.WrongRoot, errors.ForbiddenAddress),
)
def test_a_failed_task_has_the_problem_of_its_error(
    web: Client, error: type[ArchiverError]
) -> None:
    web.get(DEFAULT)
    attempt = web.world.engine.claim()
    assert attempt
    web.world.engine.fail(attempt, error("so it is"))
    response = web.get(DEFAULT)
    assert (response.status, response.code) == (STATUSES[error.code], error.code)
    assert response.json["detail"] == "so it is"


class FaultySource(FakeSource):
    """A source with a defect."""

    async def resolve(self, repo: str, rev: str) -> Node:
        raise ZeroDivisionError(f"the password is swordfish, in {repo} at {rev}")


def test_an_unexpected_exception_is_a_500_without_its_text() -> None:
    with client(World(source=FaultySource())) as web, capture_logs() as lines:
        response = web.get(DEFAULT)
    assert (response.status, response.code) == (500, "internal_error")
    assert b"swordfish" not in response.body
    assert b"ZeroDivision" not in response.body
    assert response.json["request_id"] == response.headers["x-request-id"]
    crashed, finished = (line for line in lines if line["event"].startswith("request."))
    assert (crashed["event"], crashed["log_level"]) == ("request.crashed", "error")
    assert (finished["code"], finished["outcome"]) == (500, "internal_error")


@pytest.mark.parametrize(
    "target",
    (
        "/",
        "/archiver",
        "/nothing",
        "/archiver%2Fstatus%2Fx",
        "/__version__/",
        "/metrics/x",
        "/Archiver/a/b/c",
    ),
)
def test_a_path_without_a_route_is_a_404(web: Client, target: str) -> None:
    response = web.get(target)
    assert (response.status, response.code) == (404, "no_such_route")


@pytest.mark.parametrize("target", (DEFAULT, "/archiver/status/x", "/__heartbeat__", "/metrics"))
def test_every_route_refuses_other_methods(web: Client, target: str) -> None:
    response = web.request("POST", target)
    assert (response.status, response.code) == (405, "method_not_allowed")
    allowed = "GET, HEAD, DELETE" if target == DEFAULT else "GET, HEAD"
    assert response.headers["allow"] == allowed
    assert web.world.untouched
