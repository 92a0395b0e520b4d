"""The real server, as a process: how it starts, stops and fails."""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from archiver.web.server import GRACE_S
from tests.parts.process import accepts, free_port, running, wait_until
from tests.web.raw import request

ROOT = Path(__file__).parents[2]

SOON_S = 2 * GRACE_S
"""More than running requests may take, and less than a connection may be idle."""


@contextmanager
def served(app: str, port: int, log: Path, processes: int = 1) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", "tests.web.servant", app, f"127.0.0.1:{port}", str(processes)]
    with running(command, log=log, ready=lambda: accepts(port), cwd=ROOT) as process:
        yield process


def test_it_ends_soon_after_sigterm_although_a_client_keeps_its_connection(tmp_path: Path) -> None:
    port = free_port()
    with (
        served("fakes", port, tmp_path / "log") as process,
        socket.create_connection(("127.0.0.1", port), 5) as idle,
    ):
        idle.sendall(b"GET /__lbheartbeat__ HTTP/1.1\r\nHost: h\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 0
    assert "web.stopped" in (tmp_path / "log").read_text()


@pytest.mark.thorough
def test_a_serving_process_does_not_outlive_its_parent(tmp_path: Path) -> None:
    port = free_port()
    with served("fakes", port, tmp_path / "log") as process:
        process.kill()
        process.wait()
        wait_until(lambda: not accepts(port), timeout_s=5, what="the end of the child")


@pytest.mark.thorough
def test_a_successor_may_serve_before_its_predecessor_has_ended(
    tmp_path: Path,
) -> None:
    port, log = free_port(), tmp_path / "second"
    with served("fakes", port, tmp_path / "first") as first, served("fakes", port, log):
        wait_until(lambda: "web.started" in log.read_text(), what="the second one to start")
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        assert accepts(port)


@pytest.mark.thorough
def test_a_killed_process_is_replaced_while_the_others_serve(
    tmp_path: Path,
) -> None:
    port, log = free_port(), tmp_path / "log"
    with served("fakes", port, log, processes=2) as process:
        wait_until(lambda: log.read_text().count("web.started") == 2, what="both to start")
        victim, other = children_of(process.pid)
        assert sorted(told_pids(log, "web.started")) == sorted((victim, other))
        time.sleep(6)  # granian gives up on a process that dies sooner
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: log.read_text().count("web.started") == 3, what="a new process")
        assert other in children_of(process.pid)
        assert set(told_pids(log, "web.started")) == {victim, *children_of(process.pid)}
        assert request(port, b"/__lbheartbeat__").status == 200
    assert set(told_pids(log, "web.stopped")) == set(told_pids(log, "web.started")) - {victim}


def told_pids(log: Path, event: str) -> list[int]:
    lines = (json.loads(line) for line in log.read_text().splitlines() if event in line)
    return [line["pid"] for line in lines]


def test_processes_add_up_their_metrics(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with served("fakes", port, log, processes=2):
        wait_until(lambda: log.read_text().count("web.started") == 2, what="both to start")
        for _ in range(20):
            request(port, b"/robots.txt")
        # a response is counted after it was sent
        wait_until(lambda: robots(port) == ["20.0"], what="all to be counted")
        assert [robots(port) for _ in range(8)] == [["20.0"]] * 8


def robots(port: int) -> list[str]:
    text = request(port, b"/metrics").body.decode()
    return re.findall(r'_count\{[^}]*route="robots"[^}]*\} (\S+)', text)


@pytest.mark.thorough
def test_requests_of_killed_processes_are_no_longer_counted(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    waiting = b"GET /archiver/hgmo/projects/ash/default?wait=80 HTTP/1.1\r\nHost: h\r\n\r\n"
    with served("fakes", port, log, processes=2) as process, contextlib.ExitStack() as clients:
        wait_until(lambda: log.read_text().count("web.started") == 2, what="both to start")
        time.sleep(6)  # as above
        for _ in range(6):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), 5)).sendall(waiting)
        wait_until(lambda: waiters(port) == 6, what="all to wait")
        for victim in children_of(process.pid):
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: log.read_text().count("web.started") == 4, what="new processes")
        assert waiters(port) == 0


def waiters(port: int) -> float:
    text = request(port, b"/metrics").body.decode()
    (found,) = re.findall(r"^archiver_waiters (\S+)", text, re.MULTILINE)
    return float(found)


def children_of(pid: int) -> list[int]:
    """Return the child processes of *pid* that serve."""
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
            if (
                int(fields["PPid"]) == pid
                and b"spawn_main" in path.with_name("cmdline").read_bytes()
            ):
                found.append(int(fields["Pid"]))
    return found


def test_an_application_that_cannot_start_ends_the_server_and_leaks_no_text(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(AssertionError, match="ended"),
        served("broken", free_port(), tmp_path / "log"),
    ):
        pass
    log = (tmp_path / "log").read_text()
    assert "web.failed" in log
    assert "ValueError" in log
    assert "swordfish" not in log


def test_head_has_the_headers_of_an_answer_and_no_body(tmp_path: Path) -> None:
    port = free_port()
    with served("fakes", port, tmp_path / "log"):
        response = request(port, b"/archiver/hgmo/projects/ash/default", method=b"HEAD")
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.body == b""


def test_every_request_has_one_line_in_the_log_with_its_id(tmp_path: Path) -> None:
    port, log, own = free_port(), tmp_path / "log", '"request_id": "r-1"'
    with served("fakes", port, log):
        request(port, b"/archiver/hgmo/projects/ash/default", headers=b"X-Request-ID: r-1\r\n")
        wait_until(lambda: own in log.read_text(), what="its line")
    assert log.read_text().count(own) == 1


@pytest.mark.thorough
def test_requests_find_files_to_open_although_clients_take_all_connections(tmp_path: Path) -> None:
    """Twice as many clients as the process may have files. The metrics are read from files."""
    port, files = free_port(), 256
    limited = ["prlimit", f"--nofile={files}:{files}", sys.executable, "-m", "tests.web.servant"]
    command = [*limited, "fakes", f"127.0.0.1:{port}", "1"]
    log = tmp_path / "log"
    with running(command, log=log, ready=lambda: accepts(port), cwd=ROOT):
        clients = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(2 * files)]
        answers = []
        for client in clients:
            with client:
                client.settimeout(20)
                client.sendall(b"GET /metrics HTTP/1.0\r\nHost: h\r\n\r\n")
                answers.append(client.recv(12)[-3:])
    assert set(answers) == {b"200"}
    assert "web.few_files" in log.read_text()
