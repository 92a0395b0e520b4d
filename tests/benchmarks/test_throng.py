"""Crowds of clients, and the outcomes they record for a server with known responses."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.throng import crowd, p99, throng
from tests.parts.process import accepts, free_port, running

SERVER = """
import sys, time
from benchmarks.serving import QuietHandler, serve

class Handler(QuietHandler):
    def do_GET(self):
        status, _, location = self.path.strip("/").partition("/")
        self.send_response(int(status))
        self.send_header("Location", "http://elsewhere/" if location == "away" else f"/{location}")
        self.end_headers()
        if status == "200":
            self.wfile.write(b"data")
            time.sleep(0.5)
        self.close_connection = True

serve(int(sys.argv[1]), Handler)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with running(command, log=tmp_path / "log", ready=lambda: accepts(port)):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("path", "outcome"),
    (
        ("/202", "202"),
        ("/302/away", "302"),
        ("/302/202", "202"),
        ("/302/302/away", "302"),
        ("/503", "503"),
    ),
)
@pytest.mark.thorough
def test_clients_follow_redirects_to_the_same_server_only(
    path: str, outcome: str, server: str
) -> None:
    replies = crowd(server + path, 40, over_s=0)

    assert Counter(reply.outcome for reply in replies) == {outcome: 40}


def test_a_request_without_a_response_is_lost() -> None:
    replies = crowd(f"http://127.0.0.1:{free_port()}/", 3, over_s=0)

    assert [reply.outcome for reply in replies] == ["lost"] * 3


def test_a_crowd_arrives_over_the_given_time(server: str) -> None:
    begun = sorted(reply.begun_at for reply in crowd(f"{server}/202", 20, over_s=0.4))

    assert begun[-1] - begun[0] >= 0.3


def test_streams_are_read_to_the_end(server: str) -> None:
    with throng(f"{server}/200", 5, over_s=0) as clients:
        replies = clients.replies()

    assert {reply.outcome for reply in replies} == {"200"}
    assert all(reply.taken_ms >= 500 for reply in replies)
    assert all(reply.ended_at <= time.time() for reply in replies)


def test_one_in_a_hundred_values_exceeds_the_p99() -> None:
    assert p99([float(number) for number in range(1, 1001)]) == pytest.approx(990, abs=1)
