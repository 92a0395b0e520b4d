"""The access log: an id, a line and a measurement for each request."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import Message
from structlog.testing import capture_logs

from archiver.access.tokens import create_token
from archiver.model import Node
from archiver.runtime.tasks import in_background
from archiver.telemetry import METRICS
from archiver.testing import FakeSource
from archiver.web.access_log import REFUSALS_LOGGED, AccessLog
from archiver.web.client_address import UNKNOWN_CLIENT, ClientResolver
from archiver.web.request_context import RequestContext
from tests.memory_world import World
from tests.web.client import CONFIG, DEFAULT, Client, client


def lines_of(web: Client, target: str | bytes, method: str = "GET", **headers: str) -> list[Any]:
    with capture_logs() as lines:
        web.request(method, target, **headers)
    return [line for line in lines if line["event"] == "request.finished"]


def test_a_line_has_the_fields_of_the_request(web: Client) -> None:
    (line,) = lines_of(web, DEFAULT)
    assert line.pop("duration_s") >= 0
    assert re.fullmatch(r"[0-9a-f]{16}", line.pop("request_id"))
    assert line == {
        "event": "request.finished",
        "log_level": "info",
        "method": "GET",
        "path": DEFAULT,
        "route": "archive",
        "code": 202,
        "outcome": "miss",
        "client": "192.0.2.1",
    }


@pytest.mark.parametrize(
    ("target", "method", "outcome"),
    (
        (DEFAULT, "GET", "miss"),
        (DEFAULT, "HEAD", "absent"),
        ("/archiver/hgmo/nowhere/x", "GET", "unknown_repo"),
        ("/archiver/hgmo/../x", "GET", "invalid_request"),
        ("/nothing", "GET", "no_such_route"),
        ("/archiver/status/x", "GET", "ok"),
    ),
)
def test_a_line_has_the_outcome(web: Client, target: str, method: str, outcome: str) -> None:
    (line,) = lines_of(web, target, method)
    assert line["outcome"] == outcome


def test_a_line_has_nothing_of_the_query_and_nothing_of_the_location() -> None:
    with client(World(), config=replace(CONFIG, hits_log_interval=timedelta(0))) as web:
        web.get(DEFAULT)
        web.work()
        (line,) = lines_of(web, f"{DEFAULT}?subdir=&preferred_region=us-west-2")
    assert line["outcome"] == "hit"
    assert "us-west-2" not in str(line)
    assert "X-Amz" not in str(line)


def test_a_line_names_the_client_and_not_the_proxy_before_it() -> None:
    proxies = ClientResolver(trusted_proxies=["10.0.0.0/8"])
    config = replace(CONFIG, clients=proxies, hits_log_interval=timedelta(0))
    with client(World(), config=config) as web:
        web.peer = "10.0.0.1"
        (line,) = lines_of(web, DEFAULT, x_forwarded_for="203.0.113.9, 198.51.100.7, 10.1.1.1")
        assert line["client"] == "198.51.100.7"
        web.peer = "192.0.2.1"
        (line,) = lines_of(web, DEFAULT, x_forwarded_for="198.51.100.7")
        assert line["client"] == "192.0.2.1"
        web.peer = None
        (line,) = lines_of(web, DEFAULT)
        assert line["client"] is None


def test_a_path_with_control_characters_stays_on_one_line(web: Client) -> None:
    (line,) = lines_of(web, b"/a\r\nb\x00\xff%0d%0a\x1b[31m" + b"x" * 5000)
    assert line["path"].isprintable()
    assert len(line["path"]) < 1200


def test_heartbeats_are_logged_at_the_level_debug(web: Client) -> None:
    for target in ("/__heartbeat__", "/__lbheartbeat__", "/metrics", "/__version__"):
        (line,) = lines_of(web, target)
        assert line["log_level"] == "debug"


def test_a_well_formed_request_id_is_kept(web: Client) -> None:
    assert web.get(DEFAULT, x_request_id="A-1.b_2").headers["x-request-id"] == "A-1.b_2"


def test_a_token_in_the_wrong_place_is_not_logged(web: Client) -> None:
    token = create_token()
    for target in (f"/archiver/{token}/a/b", f"/archiver/hgmo/x/{token}", f"/{token[:40]}"):
        (line,) = lines_of(web, target, x_request_id=token)
        assert token[:40] not in str(line)
        assert "archiver_***" in line["path"]


@pytest.mark.parametrize("bad", ("", "a b", "x" * 65, "é", "a\r\nSet-Cookie: b", "<script>"))
def test_any_other_request_id_is_replaced(web: Client, bad: str) -> None:
    request_id = web.get(DEFAULT, x_request_id=bad).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", request_id)


def test_summed_hits_have_the_same_metrics_as_single_ones(web: Client) -> None:
    """Above all, a slow hit among a thousand fast ones is visible."""
    durations_s = (*[0.0001] * 999, 0.005, 0.0051, 8, 10, 60)
    added_up = _measured(web, "added up", timedelta(seconds=9), durations_s)
    assert added_up == _measured(web, "by itself", timedelta(0), durations_s)
    assert (added_up["0.005"], added_up["0.01"], added_up["10.0"]) == (1000, 1001, 1003)


def _measured(
    web: Client, route: str, interval: timedelta, durations_s: Sequence[float]
) -> dict[str, float]:
    """Return the count in each bucket of the histogram, and the sum."""
    access_log = AccessLog(interval=interval)

    async def play() -> None:
        async with in_background(access_log.flush_regularly()):
            await asyncio.sleep(0)
            for duration_s in durations_s:
                access_log.record(_hit(route, web), duration_s=duration_s)

    asyncio.run(play())
    return {
        sample.labels.get("le", sample.name): round(sample.value, 6)
        for metric in METRICS.http_requests.collect()
        for sample in metric.samples
        if sample.labels["route"] == route and not sample.name.endswith("_created")
    }


def _hit(route: str, web: Client) -> RequestContext:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    context = RequestContext("a", "GET", b"/", b"", [], UNKNOWN_CLIENT, receive, web.state, 0)
    context.route, context.source, context.outcome, context.status = route, "hgmo", "hit", 302
    return context


class SilentSource(FakeSource):
    """A source that never answers."""

    async def resolve(self, repo: str, rev: str) -> Node:
        await asyncio.Event().wait()
        return await super().resolve(repo, rev)


def test_a_client_that_leaves_is_logged_and_the_cancellation_goes_on() -> None:
    """Both the first client and one that waits for the same response are logged."""

    async def leave(web: Client) -> None:
        async with asyncio.timeout(0.05), asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(web.request_async(DEFAULT))

    silent = World(source=SilentSource())
    with client(silent) as web, capture_logs() as lines, pytest.raises(TimeoutError):
        web.run(leave(web))
    finished = [line for line in lines if line["event"] == "request.finished"]
    assert [(line["code"], line["outcome"]) for line in finished] == [(499, "client_left")] * 2


def test_a_flood_of_refusals_is_counted_and_not_logged_line_by_line(web: Client) -> None:
    with capture_logs() as lines:
        for number in range(REFUSALS_LOGGED + 30):
            web.get(f"/archiver/hgmo/../{number}")
        web.peer = "192.0.2.99"
        web.get("/archiver/hgmo/../x")
        web.end()
        web.begin()
    finished = [line for line in lines if line["event"] == "request.finished"]
    assert [line["client"] for line in finished] == [*["192.0.2.1"] * REFUSALS_LOGGED, "192.0.2.99"]
    (rest,) = [line for line in lines if line["event"] == "requests.finished"]
    assert (rest["outcome"], rest["requests"]) == ("invalid_request", 30)
