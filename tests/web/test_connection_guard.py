"""One client cannot take all connections of a process."""

import contextlib
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from archiver.web.client_address import ClientResolver
from archiver.web.connection_guard import ConnectionGuard, connection_share
from archiver.web.file_limit import connections_max
from tests.parts.process import accepts, free_port, running, wait_until
from tests.web.raw import request

ROOT = Path(__file__).parents[2]

ONE, OTHER = "127.0.0.1", "127.0.0.2"
APART_S = 0.02
"""More than the clock of the system's TCP counts (4 ms, or 10 ms), so that connections have an
order."""
LIMIT = 100


class Server:
    """Accepts connections in this process, as the HTTP server does in its own."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._own = contextlib.ExitStack()
        address = (ONE if family == socket.AF_INET else "::1", 0)
        self._listening = self._own.enter_context(socket.create_server(address, family=family))
        self.address = self._listening.getsockname()[:2]
        self.accepted: list[socket.socket] = []
        self.clients: list[socket.socket] = []

    def connect(self, *sources: str) -> None:
        """Accept one connection from each of *sources*, one some time after the other."""
        for source in sources:
            client = socket.create_connection(self.address, 5, source_address=(source, 0))
            self.clients.append(self._own.enter_context(client))
            self.accepted.append(self._own.enter_context(self._listening.accept()[0]))
            time.sleep(APART_S)

    def guard(self, limit: int, **options: object) -> ConnectionGuard:
        clients = ClientResolver(**options)  # type: ignore[arg-type]
        return ConnectionGuard(port=self.address[1], limit=limit, clients=clients)

    @property
    def remaining(self) -> list[int]:
        """The numbers of the connections that are open, in the order of their begin."""
        return [number for number, each in enumerate(self.clients) if is_open(each)]

    def close(self) -> None:
        self._own.close()


def is_open(client: socket.socket) -> bool:
    """Return whether the server has left the connection open. Pending data is dropped."""
    client.settimeout(0)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as found:
        yield found


def test_the_excess_of_a_client_is_closed_and_those_of_others_stay(server: Server) -> None:
    server.connect(ONE, OTHER, ONE, OTHER, ONE, ONE)
    closed = server.guard(2).close_excess()
    assert closed == Counter({ONE: 2})
    assert server.remaining == [1, 3, 4, 5]


def test_at_its_limit_a_client_keeps_all(server: Server) -> None:
    server.connect(ONE, ONE, ONE)
    assert not server.guard(3).close_excess()
    assert server.remaining == [0, 1, 2]


def test_connections_that_are_idle_longest_are_closed_first(server: Server) -> None:
    server.connect(*[ONE] * 5)
    server.clients[0].sendall(b"a request")
    time.sleep(APART_S)
    server.accepted[2].sendall(b"an event")
    time.sleep(APART_S)
    server.guard(3).close_excess()
    assert server.remaining == [0, 2, 4]


def test_connections_of_trusted_proxies_are_not_counted(server: Server) -> None:
    server.connect(OTHER, *[ONE] * 4, OTHER)
    guard = server.guard(1, trusted_proxies=[f"{ONE}/32"])
    assert guard.close_excess() == Counter({OTHER: 1})
    assert server.remaining == [1, 2, 3, 4, 5]


def test_only_connections_to_the_own_port_are_counted(server: Server) -> None:
    server.connect(*[ONE] * 4)
    with contextlib.closing(Server()) as s3:
        s3.connect(*[ONE] * 4)
        assert not s3.guard(4).close_excess()
        assert s3.guard(3).close_excess() == Counter({ONE: 1})
        assert len(s3.remaining) == 3
    assert server.remaining == [0, 1, 2, 3]


def test_other_files_are_left_alone_and_none_is_left_open(server: Server, tmp_path: Path) -> None:
    server.connect(*[ONE] * 3)
    here, there = socket.socketpair()
    with here, there, (tmp_path / "file").open("wb") as file:
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert server.guard(1).close_excess() == Counter({ONE: 2})
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        file.write(b"x")
        here.sendall(b"x")
        assert there.recv(1) == b"x"


def test_a_network_of_ipv6_is_one_client() -> None:
    with contextlib.closing(Server(socket.AF_INET6)) as server:
        server.connect("::1", "::1")
        assert server.guard(1).close_excess() == Counter({"::/64": 1})


def test_a_client_has_half_of_a_process_at_most() -> None:
    assert connection_share(1) == 1
    assert connection_share(10**6) == connections_max() // 2


def test_closed_connections_are_counted_and_logged_once_a_minute() -> None:
    clock = [0.0]
    guard = ConnectionGuard(port=1, limit=1, clients=ClientResolver(), now=lambda: clock[0])
    before = REGISTRY.get_sample_value("archiver_connections_closed_total") or 0
    with capture_logs() as lines:
        guard.report(Counter())
        assert not lines
        for closed in (Counter({ONE: 2}), Counter({ONE: 3}), Counter({OTHER: 5})):
            guard.report(closed)
        clock[0] += 61
        guard.report(Counter())
    assert [(each["client"], each["connections"], each["clients"]) for each in lines] == [
        (ONE, 2, 1),
        (OTHER, 8, 2),
    ]
    assert REGISTRY.get_sample_value("archiver_connections_closed_total") == before + 10


def test_a_system_that_does_not_list_files_is_reported_once(tmp_path: Path) -> None:
    guard = ConnectionGuard(port=1, limit=1, clients=ClientResolver(), files=tmp_path / "none")
    with capture_logs() as lines:
        assert not guard.close_excess()
        assert not guard.close_excess()
    assert [each["event"] for each in lines] == ["connections.not_counted"]


@contextlib.contextmanager
def serving(log: Path, *prefix: str) -> Iterator[int]:
    """Yield the port of a server in a process of its own, with a limit of LIMIT connections."""
    port = free_port()
    command = [*prefix, sys.executable, "-m", "tests.web.servant", "guarded", f"{ONE}:{port}", "1"]
    with running([*command, str(LIMIT)], log=log, ready=lambda: accepts(port), cwd=ROOT):
        yield port


def answered(port: int, source: str) -> bytes:
    """Return the status of a request from *source*."""
    with socket.create_connection((ONE, port), 20, source_address=(source, 0)) as client:
        client.sendall(b"GET /__lbheartbeat__ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        return client.recv(12)[-3:]


def test_the_server_closes_the_excess_and_serves_others_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as port, contextlib.ExitStack() as own:
        flood = [
            own.enter_context(socket.create_connection((ONE, port), 20)) for _ in range(3 * LIMIT)
        ]
        answers = [answered(port, OTHER)]
        while sum(map(is_open, flood)) > LIMIT:
            answers.append(answered(port, OTHER))
        wait_until(lambda: "connections.closed" in log.read_text(), what="the line in the log")
        assert set(answers) == {b"200"}
        metrics = request(port, b"/metrics").body.decode()
    assert f"archiver_connections_closed_total {2 * LIMIT}.0" in metrics


@pytest.mark.thorough
def test_a_client_that_takes_all_connections_loses_half_of_them(tmp_path: Path) -> None:
    """The process may have 160. Another client is served before the first one's time is over."""
    with (
        serving(tmp_path / "log", "prlimit", "--nofile=256:256") as port,
        contextlib.ExitStack() as own,
    ):
        for _ in range(4 * LIMIT):
            own.enter_context(socket.create_connection((ONE, port), 20))
        assert answered(port, OTHER) == b"200"
        assert "connections.closed" in (tmp_path / "log").read_text()


@pytest.mark.thorough
def test_waiting_requests_below_the_limit_are_not_cut(tmp_path: Path) -> None:
    waiting = b"GET /archiver/hgmo/projects/ash/default?wait=80 HTTP/1.1\r\nHost: h\r\n\r\n"
    with serving(tmp_path / "log") as port, contextlib.ExitStack() as own:
        waiters = [
            own.enter_context(socket.create_connection((ONE, port), 20, source_address=(OTHER, 0)))
            for _ in range(LIMIT)
        ]
        for each in waiters:
            each.sendall(waiting)
        flood = [
            own.enter_context(socket.create_connection((ONE, port), 20)) for _ in range(2 * LIMIT)
        ]
        wait_until(lambda: sum(map(is_open, flood)) <= LIMIT, what="the end of the excess")
        for each in waiters:
            each.settimeout(20)
            assert each.recv(12)[-3:] == b"302"  # the end of its hold
