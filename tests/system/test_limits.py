"""Limits of a fleet with two web processes, against real servers."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.parts.hgweb import Ash, Hgweb
from tests.parts.process import wait_until
from tests.system.client import Answer, ended, fetch, poll
from tests.system.stack import UNLIMITED, Stack, servers

OPEN_TASKS = 5

SETTINGS = {
    **UNLIMITED,
    "ARCHIVER_LIMITS__OPEN_TASKS": str(OPEN_TASKS),
    "ARCHIVER_SERVER__PROCESSES": "2",
    "ARCHIVER_SERVER__TRUSTED_PROXIES": '["127.0.0.0/8"]',
}


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb) -> Iterator[Stack]:
    with (
        servers(tmp_path, template=hgweb.template_for(hgweb.port), settings=SETTINGS) as stack,
        stack.web(),
    ):
        yield stack


def request(stack: Stack, ash: Ash, subdir: str, *, client: str) -> Answer:
    url = stack.url(ash.repo, ash.feature, f"subdir={subdir}")
    return fetch(url, headers={"X-Forwarded-For": client})


@pytest.mark.thorough
def test_a_flood_is_limited_over_both_processes_and_an_engine_that_restarts(
    stack: Stack, ash: Ash
) -> None:
    flood = [request(stack, ash, f"dir{n}", client="192.0.2.1") for n in range(20)]
    stack.nats.down()
    stack.nats.up()
    wait_until(
        lambda: request(stack, ash, "late", client="192.0.2.1").status == 429,
        what="an answer of the restarted engine",
    )
    with ThreadPoolExecutor(8) as clients:
        addresses = [f"198.51.100.{n}" for n in range(40)]
        crowd = list(
            clients.map(
                lambda client: request(stack, ash, "testing/mozharness", client=client), addresses
            )
        )
    with stack.worker():
        wanted = poll(crowd[0].location, ended)[-1]
        for answer in flood[:OPEN_TASKS]:
            poll(answer.location, ended)
        after = request(stack, ash, "later", client="192.0.2.1")

    assert Counter(answer.status for answer in flood) == {202: OPEN_TASKS, 429: 20 - OPEN_TASKS}
    assert {answer.json["code"] for answer in flood if answer.status == 429} == {"too_many_tasks"}
    assert {answer.status for answer in crowd} == {202}
    assert wanted["state"] == "SUCCESS"
    assert after.status == 202
    lines = stack.lines("limit.reached")
    assert len(lines) <= 2  # one of each process
    assert all("192.0.2.1" in line for line in lines)
