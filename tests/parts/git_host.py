"""A git host for tests: the real ``git http-backend`` behind a small CGI server.

``git http-backend`` speaks CGI (RFC 3875), which nginx and others pass on like this.
"""

import base64
import contextlib
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

import pytest

from tests import git_repositories
from tests.git_repositories import GitRepository, git_environment
from tests.parts.lfs_host import LfsRequest, LfsResponse, LfsService
from tests.parts.process import stop

REPO = "group/project"


@dataclass(kw_only=True)
class GitRequest:
    """A request that the host received. Names of headers are in lower case.

    ``sent_bytes`` counts the bodies of responses; it is final when the client has the end of it.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    status: int = 0
    sent_bytes: int = 0

    @property
    def is_fetch(self) -> bool:
        return b"command=fetch" in self.body


class GitHost(ThreadingHTTPServer):
    """Serves every repository in *folder*, whose names end in ``.git``.

    ``renamed`` maps old repositories to new ones; the host redirects requests for the old ones.
    With ``credentials``, ``user:password``, the host demands Basic authentication. Without
    ``versions``, it ignores the header for the protocol's version, and so speaks version 0.
    ``requests`` are in order of arrival, without those for LFS files, which ``lfs`` serves.
    """

    daemon_threads = False
    block_on_close = True
    request_queue_size = 256

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.renamed: dict[str, str] = {}
        self.credentials = ""
        self.versions = True
        self.requests: list[GitRequest] = []
        self.lfs = LfsService(folder=folder / ".lfs", links=self.url)
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        return self.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def template(self) -> str:
        """The ``url_template`` for a source's settings."""
        return f"{self.url}/{{repo}}.git"

    @property
    def fetches(self) -> list[GitRequest]:
        """The requests for packs."""
        return [request for request in self.requests if request.is_fetch]

    def create(self, repo: str = REPO, *, object_format: str = "sha1") -> GitRepository:
        """Create an empty repository that is served as *repo*."""
        return git_repositories.create(self.folder / f"{repo}.git", object_format=object_format)

    @contextlib.contextmanager
    def backend(self, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``git http-backend`` during the block."""
        with subprocess.Popen(
            [shutil.which("git") or "git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**git_environment(), **environment},
        ) as child:
            with self._lock:
                self._children.add(child)
            try:
                yield child
            finally:
                stop(child)
                with self._lock:
                    self._children.discard(child)

    @property
    def backends(self) -> int:
        """The number of backends that run now."""
        with self._lock:
            return len(self._children)

    def stop_children(self) -> None:
        with self._lock:
            for child in self._children:
                child.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GitHost

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, *_arguments: object) -> None:
        """Write nothing: ``requests`` has it all."""

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = GitRequest(method=self.command, target=self.path, headers=headers)
        request.body = self._read_body(headers)
        lfs = LfsRequest(
            method=request.method, target=request.target, headers=headers, body=request.body
        )
        if response := self.server.lfs.respond(lfs):
            self._send_lfs(response)
            return
        self.server.requests.append(request)
        path, _, query = self.path.partition("?")
        if self.server.credentials and not self._is_authorized(headers):
            self._send(request, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="git"'})
        elif moved := self._moved(path):
            where = f"{self.server.url}{moved}{'?' if query else ''}{query}"
            self._send(request, HTTPStatus.MOVED_PERMANENTLY, {"Location": where})
        else:
            with contextlib.suppress(ConnectionError):
                self._serve(request, unquote(path), query)

    def _send_lfs(self, response: LfsResponse) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(response.body)

    def _is_authorized(self, headers: Mapping[str, str]) -> bool:
        expected = base64.b64encode(self.server.credentials.encode()).decode()
        return headers.get("authorization") == f"Basic {expected}"

    def _moved(self, path: str) -> str | None:
        for old, new in self.server.renamed.items():
            if path.startswith(f"/{old}.git/"):
                return path.replace(f"/{old}.git/", f"/{new}.git/", 1)
        return None

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(self._read_chunks())
        else:
            body = self.rfile.read(int(headers.get("content-length", "0")))
        is_packed = headers.get("content-encoding") in {"gzip", "x-gzip"}
        return zlib.decompress(body, wbits=31) if is_packed else body

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _serve(self, request: GitRequest, path: str, query: str) -> None:
        environment = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_USER": self.server.credentials.partition(":")[0],
        }
        if self.server.versions:
            environment["GIT_PROTOCOL"] = request.headers.get("git-protocol", "")
        with self.server.backend(environment) as child:
            assert child.stdin
            assert child.stdout
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(request.body)
                child.stdin.close()
            self._forward(request, cast("BinaryIO", child.stdout))
            child.wait()

    def _forward(self, request: GitRequest, output: BinaryIO) -> None:
        """Send the response in *output*, piece by piece, as the backend writes it."""
        headers = dict(_read_head(output))
        request.status = int(headers.pop("Status", "200 OK").split()[0])
        self.send_response(request.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := output.read1(64 * 1024):  # type: ignore[attr-defined]
            request.sent_bytes += len(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, request: GitRequest, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        request.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _read_head(output: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := output.readline().strip():
        name, _, value = line.decode("latin-1").partition(": ")
        yield name, value


@contextlib.contextmanager
def serving_git(folder: Path) -> Iterator[GitHost]:
    """Serve the repositories in *folder* on a free loopback port."""
    with GitHost(folder) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            host.stop_children()
            thread.join(5)


@pytest.fixture
def git_host(tmp_path: Path) -> Iterator[GitHost]:
    """Yield a git host without repositories."""
    with serving_git(tmp_path / "repositories") as host:
        yield host
