"""nginx and HAProxy, from Debian's packages, with the files in ``deploy/`` (`make clients`)."""

import http.client
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, read
from tests.parts.faulty_host import FaultyHost, Until, faulty_host, head, sized
from tests.parts.process import accepts, free_port, running
from tests.system.client import Answer, fetch

pytestmark = pytest.mark.programs

PROXIES = ("nginx", "haproxy")
CLIENT = "127.0.0.2"
CLOSES = {"Connection": "close"}
"""The fake web process closes each connection. Without this header, a proxy may use it again."""
NGINX = """\
daemon off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/archiver.conf;
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that can be checked and started. Its second web process is absent."""

    command: list[str]
    check: list[str]
    env: dict[str, str]
    port: int
    web: FaultyHost
    folder: Path

    @contextmanager
    def up(self) -> Iterator[None]:
        with running(
            self.command, log=self.folder / "log", ready=lambda: accepts(self.port), env=self.env
        ):
            yield

    def fetch(self, target: str, **headers: str) -> Answer:
        return fetch(f"http://127.0.0.1:{self.port}{target}", headers=headers)


@pytest.fixture
def web() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        host.script("/__lbheartbeat__", sized(b"", headers=CLOSES))
        yield host


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, web: FaultyHost) -> Iterator[Proxy]:
    create = {"nginx": _nginx, "haproxy": _haproxy}[request.param]
    with tempfile.TemporaryDirectory(prefix="archiver-proxy-") as name:
        folder = Path(name)  # pytest's folder is closed to the user of nginx
        folder.chmod(0o755)
        yield create(folder, web, free_port(), free_port())


def _nginx(folder: Path, web: FaultyHost, port: int, absent: int) -> Proxy:
    text = read("nginx/archiver.conf")
    for known, ours in (
        ("127.0.0.1:8010", f"127.0.0.1:{web.port}"),
        ("127.0.0.1:8020", f"127.0.0.1:{absent}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
    ):
        assert text.count(known) == 1
        text = text.replace(known, ours)
    (folder / "archiver.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = ["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Proxy(command=command, check=[*command, "-t"], env={}, port=port, web=web, folder=folder)


def _haproxy(folder: Path, web: FaultyHost, port: int, absent: int) -> Proxy:
    config = str(DEPLOY / "haproxy" / "haproxy.cfg")
    env = {
        "ARCHIVER_BIND": f"127.0.0.1:{port}",
        "ARCHIVER_WEB_1": f"127.0.0.1:{web.port}",
        "ARCHIVER_WEB_2": f"127.0.0.1:{absent}",
    }
    return Proxy(
        command=["/usr/sbin/haproxy", "-f", config],
        check=["/usr/sbin/haproxy", "-c", "-f", config],
        env=env,
        port=port,
        web=web,
        folder=folder,
    )


def test_the_program_reads_the_file_without_a_warning(proxy: Proxy) -> None:
    result = subprocess.run(proxy.check, env=proxy.env, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "warn" not in (result.stdout + result.stderr).lower()


def test_the_path_arrives_as_the_client_wrote_it(proxy: Proxy) -> None:
    targets = (
        "/archiver/hgmo/projects%2Fash/REL%2F2.0?suffix=tar.gz&subdir=a%2Fb",
        "/archiver/hgmo//projects/%41sh/../%2e%2e/%E2%82%AC",
        f"/archiver/hgmo/a/b?subdir={'x' * 8000}",
    )
    for target in targets:
        proxy.web.script(target, sized(b"{}", "202 Accepted", CLOSES))
    with proxy.up():
        answers = [proxy.fetch(target) for target in targets]
    assert [answer.status for answer in answers] == [202] * len(targets)
    asked = [target for target in proxy.web.targets if target != "/__lbheartbeat__"]
    assert tuple(asked) == targets


def test_the_header_names_the_client_whatever_the_client_says(proxy: Proxy) -> None:
    proxy.web.script("/archiver", sized(b"{}", headers=CLOSES))
    with (
        proxy.up(),
        closing(
            http.client.HTTPConnection("127.0.0.1", proxy.port, source_address=(CLIENT, 0))
        ) as connection,
    ):
        claims = {"X-Forwarded-For": "198.51.100.7", "Authorization": "Bearer token"}
        connection.request("GET", "/archiver", headers=claims)
        assert connection.getresponse().status == 200
    (request,) = [each for each in proxy.web.requests if each.target == "/archiver"]
    assert request.headers["x-forwarded-for"] == CLIENT
    assert request.headers["authorization"] == "Bearer token"
    assert request.headers["host"] == f"127.0.0.1:{proxy.port}"


def test_an_event_arrives_before_the_next_one_is_sent(proxy: Proxy) -> None:
    received = threading.Event()
    proxy.web.script(
        "/events",
        head({**CLOSES, "Content-Type": "text/event-stream"}),
        b"event: progress\ndata: {}\n\n",
        Until(received),
        b"event: done\ndata: {}\n\n",
    )
    with (
        proxy.up(),
        closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)) as connection,
    ):
        connection.request("GET", "/events")
        response = connection.getresponse()
        first = b"".join(response.readline() for _ in range(3))
        assert first == b"event: progress\ndata: {}\n\n"
        received.set()
        assert response.read() == b"event: done\ndata: {}\n\n"


def test_requests_reach_the_web_process_that_is_there(proxy: Proxy) -> None:
    proxy.web.script("/archiver", sized(b"{}", headers=CLOSES))
    with proxy.up():
        assert {proxy.fetch("/archiver").status for _ in range(20)} == {200}


def test_a_redirect_reaches_the_client_unchanged(proxy: Proxy) -> None:
    location = "https://s3.example.org/archives/a%2Fb?X-Amz-Signature=0"
    proxy.web.script("/archiver", sized(b"", "302 Found", {**CLOSES, "Location": location}))
    with proxy.up():
        assert proxy.fetch("/archiver").location == location


def test_metrics_are_not_for_clients(proxy: Proxy) -> None:
    proxy.web.script("/metrics", sized(b"secret", headers=CLOSES))
    with proxy.up():
        answers = [proxy.fetch(target) for target in ("/metrics", "/metrics?x", "/%6detrics")]
    assert [answer.status for answer in answers] == [404] * 3
    assert "/metrics" not in "".join(proxy.web.targets)
