"""Clients that wait for a miss, on the real stack: held, sent here again, and never given a 202."""

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
"""Longer than what is to happen while nobody is sent on, even on a busy machine."""

SEATS = 220
SLOW = 300_000
"""Bytes a second at which the large archive takes some seconds."""


@pytest.fixture
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        yield host


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: SlowHost) -> Iterator[Stack]:
    settings = {
        "ARCHIVER_SERVER__HOLD_S": str(HOLD_S),
        "ARCHIVER_SERVER__PROCESSES": "1",  # of which the seats are
        "ARCHIVER_SERVER__WAITERS_PER_CLIENT": str(SEATS),
    }
    with servers(tmp_path, template=hgweb.template_for(host.port), settings=settings) as stack:
        yield stack


def follow(stack: Stack, url: str) -> list[Answer]:
    """Return all answers up to the first that does not lead to the same place again."""
    answers = [fetch(url)]
    while answers[-1].status == 302 and answers[-1].location.startswith(stack.public):
        answers.append(fetch(answers[-1].location))
    return answers


def waiters(stack: Stack) -> float:
    text = fetch(f"{stack.public}/metrics").body.decode()
    line = next(line for line in text.splitlines() if line.startswith("archiver_waiters "))
    return float(line.split()[1])


def test_a_crowd_that_waits_costs_one_fetch_and_ends_at_the_archive(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    url = stack.url(large.name, large.tip, f"wait={8 * HOLD_S}")
    host.rate = SLOW
    with stack.web(), stack.worker(), ThreadPoolExecutor(CROWD) as crowd:
        following = [crowd.submit(follow, stack, url) for _ in range(CROWD)]
        wait_until(lambda: waiters(stack) >= CROWD, timeout_s=20)
        time.sleep(HOLD_S)  # so that a hold comes to its end
        host.rate = None
        answers = [future.result() for future in following]
        bodies = {fetch(of_one[-1].location).body for of_one in answers[:3]}

    statuses = Counter(answer.status for of_one in answers for answer in of_one)
    assert set(statuses) == {302}
    assert {of_one[-1].headers["Archiver-Cache"] for of_one in answers} == {"hit"}
    assert all(1 < len(of_one) <= 8 for of_one in answers)
    assert len(bodies) == 1
    assert len(host.archives()) == 1


def test_who_waits_survives_the_loss_of_the_engine(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    """Told in the end: 302 to the archive, or a 503 when it had to be asked for meanwhile."""
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

    last = Counter(of_one[-1].status for of_one in answers)
    assert set(last) <= {302, 503}
    assert {answer.status for of_one in answers for answer in of_one[:-1]} <= {302}
    assert all(
        "Retry-After" in of_one[-1].headers for of_one in answers if of_one[-1].status == 503
    )
    assert last[302] >= 1


def test_more_than_may_wait_are_turned_away_at_once(stack: Stack, ash: Ash) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    url = stack.url(ash.repo, ash.node, f"wait={8 * LONG_HOLD_S}")
    with stack.web(), ThreadPoolExecutor(SEATS) as crowd:
        following = [crowd.submit(follow, stack, url) for _ in range(SEATS)]
        wait_until(lambda: waiters(stack) == SEATS, timeout_s=LONG_HOLD_S)
        late = [fetch(url) for _ in range(20)]
        health, still_waiting = fetch(f"{stack.public}/__lbheartbeat__"), waiters(stack)
        with stack.worker():
            answers = [future.result() for future in following]

    assert {(answer.status, answer.json["code"]) for answer in late} == {(503, "too_many_waiters")}
    assert (health.status, still_waiting) == (200, SEATS)
    assert {of_one[-1].headers.get("Archiver-Cache") for of_one in answers} == {"hit"}


def test_a_client_that_leaves_gives_its_seat_back(stack: Stack, ash: Ash) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    target = stack.url(ash.repo, ash.node, "wait=80").removeprefix(stack.public)
    with stack.web():
        with socket.create_connection(("127.0.0.1", stack.port)) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            wait_until(lambda: waiters(stack) == 1)
        wait_until(lambda: waiters(stack) == 0, timeout_s=LONG_HOLD_S / 2)


@pytest.mark.parametrize("wait_s", (80, LONG_HOLD_S - 1))
def test_a_web_process_that_is_told_to_stop_sends_on_who_waits(
    wait_s: int, stack: Stack, ash: Ash
) -> None:
    stack.env["ARCHIVER_SERVER__HOLD_S"] = str(LONG_HOLD_S)
    url = stack.url(ash.repo, ash.node, f"wait={wait_s}")
    with stack.web() as web, ThreadPoolExecutor(1) as one:
        asking = one.submit(fetch, url)
        wait_until(lambda: waiters(stack) == 1, timeout_s=10)
        web.send_signal(signal.SIGTERM)
        answer = asking.result()

    assert answer.status == 302
    assert "hop=1" in answer.location


def test_events_come_as_they_happen_and_end_with_the_task(
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


def test_polls_and_answers_with_wait_say_the_same_as_those_without(stack: Stack, ash: Ash) -> None:
    with stack.web(), stack.worker():
        status = fetch(stack.url(ash.repo, ash.node)).location
        results = poll(f"{status}?wait=2", ended)
    assert results[-1]["state"] == "SUCCESS"
