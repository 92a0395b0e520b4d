"""The route table, and the headers and the log line that every route shares."""

import pytest
from structlog.testing import capture_logs

from archiver.web.app import ROUTES
from tests.memory_world import ASH, World
from tests.web.client import CONFIG, DEFAULT, PUBLIC_URL, Client


@pytest.mark.parametrize(
    ("method", "target", "route", "status"),
    (
        ("GET", DEFAULT, "archive", 202),
        ("HEAD", DEFAULT, "archive", 404),
        ("GET", "/archiver/status", "archive", 404),
        ("GET", "/archiver/status/a/b", "none", 404),
        ("GET", "/archiver/status/a", "status", 200),
        ("GET", "/archiver/status/a/events", "events", 404),
        ("GET", f"/get/hgmo/{ASH}/default.zip.sha256", "checksum", 503),
        ("GET", f"/get/hgmo/{ASH}/default.sha256.zip", "file", 404),
        ("GET", f"/sha256/{'0' * 64}", "digest", 404),
        ("GET", "/sha256/%", "digest", 400),
        ("POST", "/sha256/a", "digest", 405),
        ("POST", DEFAULT, "archive", 405),
        ("DELETE", DEFAULT, "purge", 401),
        ("DELETE", "/archiver/status/a", "status", 405),
        ("GET", "/metrics", "metrics", 200),
        ("GET", "/metrics/x", "none", 404),
        ("GET", "/archiver/tasks", "tasks", 401),
        ("DELETE", "/archiver/archives", "archives", 405),
        ("GET", "/archiver/tasks/a/b", "archive", 404),
        ("GET", "/archiver/archives2/a/b", "archive", 404),
        ("POST", "/nothing", "none", 404),
        ("GET", f"/{'x' * 9000}", "none", 414),
    ),
)
def test_every_request_is_logged_with_its_route_and_has_the_standard_headers(
    hasty: Client, method: str, target: str, route: str, status: int
) -> None:
    target = f"{target}?wait=0" if route == "checksum" else target
    with capture_logs() as lines:
        response = hasty.request(method, target)
    (line,) = (line for line in lines if line["event"] == "request.finished")
    assert (line["route"], line["code"], response.status) == (route, status, status)
    assert response.headers["x-request-id"] == line["request_id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-robots-tag"] == "noindex, nofollow"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in response.headers["cache-control"]


def test_urls_in_responses_have_the_paths_of_the_table(web: Client) -> None:
    archive = World().archive()
    urls = {
        CONFIG.repo_url(archive): "archive",
        CONFIG.archive_url(archive, "a/b"): "archive",
        CONFIG.canonical_url(archive): "archive",
        CONFIG.status_url(archive): "status",
    }
    for url, route in urls.items():
        with capture_logs() as lines:
            web.get(url.removeprefix(PUBLIC_URL))
        assert lines[-1]["route"] == route


def test_the_names_of_routes_are_unique() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
