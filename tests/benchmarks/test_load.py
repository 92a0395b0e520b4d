"""The load generator's targets, CPU pinning, and the bare server that Archiver is compared with."""

import os
import subprocess
import sys
from email.message import Message
from pathlib import Path

from benchmarks.load import Targets
from benchmarks.pinning import SERVER, on
from benchmarks.redirectors import constant
from tests.system.client import Answer, fetch

AFFINITY = "import os; print(sorted(os.sched_getaffinity(0)))"


def test_targets_are_written_in_order_without_the_server(tmp_path: Path) -> None:
    targets = Targets.write(tmp_path, ["http://h:1/b?c=d", "http://h:1/a"])

    assert targets.base == "http://h:1"
    assert targets.file.read_text() == "/b?c=d\n/a\n"


def test_only_processes_started_in_the_block_are_pinned() -> None:
    before = os.sched_getaffinity(0)

    with on(SERVER):
        child = subprocess.run([sys.executable, "-c", AFFINITY], check=True, stdout=subprocess.PIPE)

    assert child.stdout.decode().strip() == str(sorted(SERVER))
    assert os.sched_getaffinity(0) == before


def test_the_bare_server_sends_archivers_response_for_any_target(tmp_path: Path) -> None:
    headers = {"Location": "http://s3/x?y=z", "Archiver-Node": "5ca1", "X-Request-ID": "7"}
    response = Answer(status=302, headers=Message(), body=b"elsewhere")
    for name, value in headers.items():
        response.headers[name] = value

    with constant(response, tmp_path) as url:
        answer = fetch(f"{url}/whatever")

    assert (answer.status, answer.body) == (302, b"elsewhere")
    assert {name: answer.headers[name] for name in headers} == headers
