"""Workers that drain while a fleet works."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Hgweb, Repository
from tests.parts.json_output import documents
from tests.parts.process import wait_until
from tests.parts.slow_host import SlowHost
from tests.system.client import fetch, poll, stored
from tests.system.stack import UNLIMITED, Process, Stack, servers

pytestmark = pytest.mark.thorough

SLOW = 20_000
"""Bytes per second. At this rate the large archive takes two minutes."""

TIMEOUT_S = 90.0


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: SlowHost) -> Iterator[Stack]:
    settings = {"ARCHIVER_WORKER__GRACE_S": "0", **UNLIMITED}
    with servers(tmp_path, template=hgweb.template_for(host.port), settings=settings) as stack:
        yield stack


def fetching(result: dict[str, Any]) -> bool:
    return bool(result["state"] == "STARTED" and result["bytes_done"])


def drain(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "archiver", "drain", *words],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def name_of(stack: Stack, process: Process) -> str:
    """Return the name that a worker reports, once it does."""
    found: list[str] = []

    def is_listed() -> bool:
        unknown = drain(stack, "nobody:0", "--json")
        assert unknown.returncode == 3, unknown
        hint = json.loads(unknown.stdout.splitlines()[-1])["error"]["hint"]
        found[:] = [
            name
            for name in hint.strip(".").replace(",", "").split()
            if name.endswith(f":{process.pid}")
        ]
        return bool(found)

    wait_until(is_listed, what="the report of the worker")
    return found[0]


def test_one_worker_drains_and_the_other_goes_on(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    with stack.web(), stack.worker("worker-1") as leaving:
        name = name_of(stack, leaving)
        host.rate = SLOW
        running = fetch(stack.url(large.name, large.tip)).location
        poll(running, fetching)
        with stack.worker("worker-2") as staying:
            ordered = drain(stack, name, "--no-wait", "--json")
            assert ordered.returncode == 0, ordered
            first = documents(ordered.stdout)[0]
            assert (first["worker"], first["state"], len(first["running"])) == (name, "draining", 1)
            timed_out = drain(stack, name, "--timeout", "0")
            assert timed_out.returncode == 4, timed_out
            other = fetch(stack.url(large.name, large.tip, "suffix=zip")).location
            host.rate = None
            gone = drain(stack, name, "--json")
            assert leaving.wait(TIMEOUT_S) == 0
            for status in (running, other):
                result = poll(status, stored, timeout_s=TIMEOUT_S)[-1]
                assert (result["state"], result["failures"]) == ("SUCCESS", 0)
            assert poll(running, stored)[-1]["attempt"] == 1
            assert staying.poll() is None

    assert gone.returncode in {0, 3}, gone  # it may have gone before the second command
    assert "task.handed_back" not in stack.logs()


def test_the_only_worker_is_gone_when_the_command_ends(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    with stack.web(), stack.worker() as worker:
        name = name_of(stack, worker)
        host.rate = SLOW
        status = fetch(stack.url(large.name, large.tip)).location
        poll(status, fetching)
        assert drain(stack, name, "--no-wait").returncode == 0
        host.rate = SLOW * 10
        result = drain(stack, "--all", "--json")
        assert result.returncode == 0, result
        lines = documents(result.stdout)
        assert [line["state"] for line in lines if "state" in line][-1] == "gone"
        assert {line["worker"] for line in lines if "worker" in line} == {name}
        assert (lines[-1]["workers"], lines[-1]["gone"]) == (1, 1)
        assert worker.wait(TIMEOUT_S) == 0
        assert poll(status, stored)[-1]["attempt"] == 1
        health = fetch(f"{stack.public}/__heartbeat__")
        assert health.json["checks"]["workers"] == "error"
        assert drain(stack, "--all").returncode == 3


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_a_drain(
    stack: Stack, large: Repository, host: SlowHost, number: signal.Signals
) -> None:
    host.rate = SLOW
    with stack.web():
        with stack.worker("worker-1") as leaving:
            status = fetch(stack.url(large.name, large.tip)).location
            poll(status, fetching)
            leaving.send_signal(signal.SIGUSR1)
            stack.lines("worker.draining")
            assert leaving.poll() is None
            leaving.send_signal(number)
            assert leaving.wait(TIMEOUT_S) == 0
            assert "task.handed_back" in stack.logs()
        host.rate = None
        with stack.worker("worker-2"):
            assert poll(status, stored, timeout_s=TIMEOUT_S)[-1]["state"] == "SUCCESS"


def test_sigterm_with_a_long_grace_is_a_drain(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    stack.env["ARCHIVER_WORKER__GRACE_S"] = "86400"
    host.rate = SLOW
    with stack.web(), stack.worker() as worker:
        status = fetch(stack.url(large.name, large.tip)).location
        poll(status, fetching)
        worker.send_signal(signal.SIGTERM)
        stack.lines("worker.draining")
        host.rate = None
        assert worker.wait(TIMEOUT_S) == 0
        result = poll(status, stored)[-1]

    assert (result["state"], result["attempt"]) == ("SUCCESS", 1)
    assert "task.handed_back" not in stack.logs()


def test_a_worker_that_is_killed_while_it_drains_loses_no_task(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    host.rate = SLOW
    with stack.web(), stack.worker("worker-1") as victim:
        name = name_of(stack, victim)
        status = fetch(stack.url(large.name, large.tip)).location
        poll(status, fetching)
        assert drain(stack, name, "--no-wait").returncode == 0
        victim.kill()
        victim.wait()
        host.rate = None
        with stack.worker("worker-2"):
            result = poll(status, stored, timeout_s=TIMEOUT_S)[-1]

    assert (result["state"], result["attempt"]) == ("SUCCESS", 2)
