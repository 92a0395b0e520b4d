"""Requests with ``wait`` on the real stack: held, then redirected, and never answered with 202."""

import json
import signal
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.parts.process import wait_until
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.client import Answer, ended, fetch, poll
from tests.system.stack import Stack, servers

pytestmark = pytest.mark.thorough

CROWD = 200
HOLD_S = 2
LONG_HOLD_S = 14
"""Seconds in which the steps of a test finish before any hold ends, even on a busy machine."""

MAX_WAITERS = 220
SLOW = 300_000
"""Bytes per second. At this rate the large archive takes several seconds."""


@pytest.fixture
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        yield host


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: SlowHost) -> Iterator[Stack]:
    settings = {
        "ARCHIVER_SERVER__HOLD_S": str(HOLD_S),
        "ARCHIVER_SERVER__PROCESSES": "1",  # the limit is per process
        "ARCHIVER_SERVER__WAITERS_PER_CLIENT": str(MAX_WAITERS),
    }
    with servers(tmp_path, template=hgweb.template_for(host.port), settings=settings) as stack:
        yield stack


def follow(stack: Stack, url: str) -> list[Answer]:
    """Follow redirects to Archiver itself, and return all responses."""
    answers = [fetch(url)]
    while answers[-1].status == 302 and answers[-1].location.startswith(stack.public):
        answers.append(fetch(answers[-1].location))
    return answers


def waiters(stack: Stack) -> float:
    text = fetch(f"{stack.public}/metrics").body.decode()
    line = next(line for line in text.splitlines() if line.startswith("archiver_waiters "))
    return float(line.split()[1])


def test_a_waiting_crowd_causes_one_fetch_and_is_redirected_to_the_archive(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    url = stack.url(large.name, large.tip, f"wait={8 * HOLD_S}")
    host.rate = SLOW
    with stack.web(), stack.worker(), ThreadPoolExecutor(CROWD) as crowd:
        following = [crowd.submit(follow, stack, url) for _ in range(CROWD)]
        wait_until(lambda: waiters(stack) >= CROWD, timeout_s=20)
        time.sleep(HOLD_S)  # until a hold ends
        host.rate = None
        answers = [future.result() for future in following]
        bodies = {fetch(chain[-1].location).body for chain in answers[:3]}

    statuses = Counter(answer.status for chain in answers for answer in chain)
    assert set(statuses) == {302}
    assert {chain[-1].headers["Archiver-Cache"] for chain in answers} == {"hit"}
    assert all(1 < len(chain) <= 8 for chain in answers)
    assert len(bodies) == 1
    assert len(host.archives()) == 1


def test_waiting_requests_survive_a_restart_of_the_engine(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    """They end with a 302 to the archive, or with a 503 if a hop arrived during the outage."""
    url = stack.url(large.name, large.tip, f"wait={8 * HOLD_S}")
    host.rate = SLOW
    with stack.web(), stack.worker(), ThreadPoolExecutor(20) as crowd:
        following = [crowd.submit(follow, stack, url) for _ in range(20)]
        wait_until(lambda: waiters(stack) >= 20, timeout_s=20)
        stack.nats.down()
        time.sleep(1)
        stack.nats.up()
        host.rate = None
        answers = [future.result() for future in following]

    last = Counter(chain[-1].status for chain in answers)
    assert set(last) <= {302, 503}
    assert {answer.status for chain in answers for answer in chain[:-1]} <= {302}
    assert all("Retry-After" in chain[-1].headers for chain in answers if chain[-1].status == 503)
    assert last[302] >= 1


def test_requests_above_the_limit_of_waiters_get_a_503_at_once(stack: Stack, ash: Ash) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    url = stack.url(ash.repo, ash.node, f"wait={8 * LONG_HOLD_S}")
    with stack.web(), ThreadPoolExecutor(MAX_WAITERS) as crowd:
        following = [crowd.submit(follow, stack, url) for _ in range(MAX_WAITERS)]
        wait_until(lambda: waiters(stack) == MAX_WAITERS, timeout_s=LONG_HOLD_S)
        late = [fetch(url) for _ in range(20)]
        health, still_waiting = fetch(f"{stack.public}/__lbheartbeat__"), waiters(stack)
        with stack.worker():
            answers = [future.result() for future in following]

    assert {(answer.status, answer.json["code"]) for answer in late} == {(503, "too_many_waiters")}
    assert (health.status, still_waiting) == (200, MAX_WAITERS)
    assert {chain[-1].headers.get("Archiver-Cache") for chain in answers} == {"hit"}


def test_a_disconnected_client_no_longer_counts_as_a_waiter(stack: Stack, ash: Ash) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    target = stack.url(ash.repo, ash.node, "wait=80").removeprefix(stack.public)
    with stack.web():
        with socket.create_connection(("127.0.0.1", stack.port)) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            wait_until(lambda: waiters(stack) == 1)
        wait_until(lambda: waiters(stack) == 0, timeout_s=LONG_HOLD_S / 2)


@pytest.mark.parametrize("wait_s", (80, LONG_HOLD_S - 1))
def test_a_stopping_web_process_redirects_waiting_requests(
    wait_s: int, stack: Stack, ash: Ash
) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    url = stack.url(ash.repo, ash.node, f"wait={wait_s}")
    with stack.web() as web, ThreadPoolExecutor(1) as one:
        waiting = one.submit(fetch, url)
        wait_until(lambda: waiters(stack) == 1, timeout_s=10)
        web.send_signal(signal.SIGTERM)
        answer = waiting.result()

    assert answer.status == 302
    assert "hop=1" in answer.location


def test_events_arrive_during_the_task_and_end_with_it(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    host.rate = SLOW
    with stack.web(), stack.worker():
        status = fetch(stack.url(large.name, large.tip)).location
        with urllib.request.urlopen(f"{status}/events", timeout=30) as stream:  # noqa: S310
            lines = []
            for raw in stream:
                lines.append(raw.decode().strip())
                if "fetching" in lines[-1]:
                    host.rate = None
        polled = fetch(f"{status}?wait=10").json["result"]

    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line[6:])["result"] for line in lines if line.startswith("data: ")]
    ids = [int(line[4:]) for line in lines if line.startswith("id: ")]
    assert names[-1] == "done"
    assert set(names[:-1]) == {"progress"}
    assert data[-1]["sha256"] == polled["sha256"]
    assert set() < set(data[-1]["s3_urls"]) <= set(polled["s3_urls"])
    assert ids == sorted(set(ids))
    assert "X-Amz" not in stack.logs()


def test_polls_with_wait_return_the_same_status_as_polls_without(stack: Stack, ash: Ash) -> None:
    with stack.web(), stack.worker():
        status = fetch(stack.url(ash.repo, ash.node)).location
        results = poll(f"{status}?wait=2", ended)
    assert results[-1]["state"] == "SUCCESS"
