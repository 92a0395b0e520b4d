"""A fleet whose host is busy or away, and a region that is away while clients need it."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.parts.busy_host import SILENCE, BusyHost, busy_host, refusal
from tests.parts.hgweb import Ash, Hgweb
from tests.parts.process import wait_until
from tests.system.client import fetch, poll, stored, succeed
from tests.system.stack import REGIONS, UNLIMITED, Stack, servers

pytestmark = pytest.mark.thorough

EAST, WEST = REGIONS

PAUSE_S = 25
"""Long enough for a busy machine to get all tasks back into the queue."""

SUFFIXES = ("tar.gz", "zip", "tar.bz2")


@pytest.fixture
def host(hgweb: Hgweb) -> Iterator[BusyHost]:
    with busy_host(hgweb.port) as host:
        yield host


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: BusyHost) -> Iterator[Stack]:
    settings = {
        **UNLIMITED,
        "ARCHIVER_SOURCES__HGMO__CONCURRENCY": "3",
        "ARCHIVER_SOURCES__HGMO__BREAKER_FAILURES": "3",
        "ARCHIVER_SERVER__HIT_TTL_S": "300",
    }
    template = hgweb.template_for(host.port)
    with servers(tmp_path, template=template, settings=settings) as stack:
        yield stack


def accept(stack: Stack, ash: Ash) -> list[str]:
    """Have tasks created for several archives, and return the URLs of their statuses."""
    urls = [
        stack.url(ash.repo, node, f"suffix={suffix}")
        for node in (ash.node, ash.old)
        for suffix in SUFFIXES
    ]
    answers = [fetch(url) for url in urls]
    assert {answer.status for answer in answers} == {202}
    return [answer.location for answer in answers]


def pauses(stack: Stack, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stack.logs().splitlines() if f'"{event}"' in line]


def paused_until(stack: Stack, event: str, *, nth: int) -> datetime:
    """Wait for the *nth* pause, and return its end."""
    wait_until(lambda: len(pauses(stack, event)) >= nth, what=f"pause {nth}")
    return datetime.fromisoformat(pauses(stack, event)[nth - 1]["until"])


def all_waiting(statuses: list[str]) -> None:
    """Wait until no worker has any of the tasks."""
    for status in statuses:
        poll(status, lambda result: result["state"] in {"PENDING", "RETRY"})


def test_a_pause_that_the_host_asks_for_costs_it_one_request_and_loses_no_task(
    stack: Stack, ash: Ash, host: BusyHost
) -> None:
    with stack.web():
        statuses = accept(stack, ash)
        host.refusal = refusal("429 Too Many Requests", retry_after_s=PAUSE_S)
        with stack.worker("worker-1"), stack.worker("worker-2"):
            first = paused_until(stack, "source.paused", nth=1)
            all_waiting(statuses)
            before = len(host.refused)
            lookup = fetch(stack.url(ash.repo, "a-branch"))
            heartbeat = fetch(f"{stack.public}/__heartbeat__")
            metrics = fetch(f"{stack.public}/metrics").body.decode()
            early = datetime.now(UTC) < first
            second = paused_until(stack, "source.paused", nth=2)
            all_waiting(statuses)
            probes = len(host.refused) - before
            host.refusal = None
            waited = datetime.now(UTC) < second
            results = [poll(status, stored)[-1] for status in statuses]
            wait_until(lambda: "breaker.closed" in stack.logs(), what="the end of the pause")
            healthy = fetch(f"{stack.public}/__heartbeat__")

    assert early, "the machine is too slow for this pause"
    assert waited, "the machine is too slow for this pause"
    assert before <= 3, "more requests than seats"
    assert probes == 1
    assert (lookup.status, lookup.json["code"]) == (503, "source_paused")
    assert 1 <= int(lookup.headers["Retry-After"]) <= PAUSE_S
    assert heartbeat.status == 200
    assert heartbeat.json["checks"]["breaker.source.hgmo"] == "warning"
    assert 'archiver_breaker_state{kind="source",name="hgmo"} 2.0' in metrics
    assert "breaker.source.hgmo" not in healthy.json["checks"]
    assert {result["state"] for result in results} == {"SUCCESS"}
    assert sum(result["failures"] for result in results) == before + probes
    assert {line["wait_s"] for line in pauses(stack, "task.retried")} == {0}, "a delay holds a seat"
    assert len(pauses(stack, "source.paused")) == 2
    assert len(pauses(stack, "breaker.closed")) == 1


def test_a_storm_of_503s_opens_the_breaker_and_stored_archives_are_served(
    stack: Stack, ash: Ash, host: BusyHost
) -> None:
    url = stack.url(ash.repo, ash.tip)
    with stack.web(), stack.worker("worker-1"), stack.worker("worker-2"):
        succeed(url)
        host.refusal = refusal("503 Service Unavailable")
        names = [f"branch-{number}" for number in range(20)]
        storm = [fetch(stack.url(ash.repo, name)) for name in names]
        hit = fetch(url)
        refused = len(host.refused)
        host.refusal = None
        missing = stack.url(ash.repo, ash.old)
        wait_until(lambda: fetch(missing).status == 202, what="the end of the pause")
        result = poll(fetch(missing).location, stored)[-1]

    assert {answer.status for answer in storm} == {503}
    assert [answer.json["code"] for answer in storm].count("source_busy") == refused == 3
    assert hit.status == 302
    assert result["state"] == "SUCCESS"
    assert pauses(stack, "breaker.opened")[0]["failures"] == 3


def test_a_worker_that_is_killed_during_the_probe_keeps_no_other_from_trying(
    stack: Stack, ash: Ash, host: BusyHost
) -> None:
    with stack.web():
        statuses = accept(stack, ash)
        host.refusal = refusal("503 Service Unavailable", retry_after_s=3)
        with stack.worker("worker-1") as victim:
            paused_until(stack, "source.paused", nth=1)
            all_waiting(statuses)
            before = len(host.refused)
            host.refusal = SILENCE
            wait_until(lambda: len(host.refused) > before, what="the probe")
            victim.kill()
            victim.wait()
        host.refusal = None
        with stack.worker("worker-2"):
            results = [poll(status, stored, timeout_s=120)[-1] for status in statuses]
        probes = len(host.refused) - before

    assert probes == 1
    assert {result["state"] for result in results} == {"SUCCESS"}


def test_redirects_leave_a_region_within_seconds_of_its_failure_and_return(
    stack: Stack, ash: Ash
) -> None:
    url = f"{stack.url(ash.repo, ash.node)}?preferred_region={WEST}"
    with stack.web(), stack.worker():
        succeed(url)
        for _ in range(3):  # a response is remembered when it was requested before
            assert fetch(url).headers["Archiver-Region"] == WEST
        stack.regions[WEST].down()
        began = time.monotonic()
        wait_until(lambda: fetch(url).headers["Archiver-Region"] == EAST, what="the other region")
        took_s = time.monotonic() - began
        avoiding = fetch(url)
        heartbeat = fetch(f"{stack.public}/__heartbeat__")
        body = fetch(avoiding.location).body
        stack.regions[WEST].up()
        wait_until(lambda: fetch(url).headers["Archiver-Region"] == WEST, what="the return")

    assert took_s < 60, "a remembered redirect stays for 300 s"
    assert avoiding.headers["Archiver-Region-Fallback"] == WEST
    assert str(len(body)) == avoiding.headers["Archiver-Size"]
    assert heartbeat.json["checks"][f"breaker.region.{WEST}"] == "warning"
    assert len(pauses(stack, "breaker.opened")) == 1
