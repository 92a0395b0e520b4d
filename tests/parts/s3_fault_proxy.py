"""A region that misbehaves: a real HTTP server before a real S3 server, which it mostly obeys."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BYTES_BEFORE_CUT = 100_000


class Fault(Enum):
    """What may happen to a request."""

    HANG = auto()
    """It is read, and nothing follows."""

    REFUSE = auto()
    """It is answered with 503."""

    FORBID = auto()
    """It is answered with 403, which nobody asks a second time."""

    CUT = auto()
    """The connection breaks in the middle of the request's body, or of the answer's."""

    REDIRECT = auto()
    """It is sent to ``elsewhere``."""

    MUTE = auto()
    """It is obeyed, but the answer is lost."""


Misbehave = Callable[[str, str], Fault | None]
"""What happens to the request with this method and this target."""


class Sink:
    """An endpoint that passes requests on to a server, as far as ``misbehave`` lets it."""

    def __init__(self, *, upstream: str) -> None:
        self.endpoint = ""
        self.upstream = upstream
        self.elsewhere = ""
        self.requests: list[tuple[str, str]] = []
        self.misbehave: Misbehave = lambda _method, _target: None
        self.closed = threading.Event()


@contextmanager
def sink(upstream: str, misbehave: Misbehave | None = None) -> Iterator[Sink]:
    """Listen for as long as the block runs."""
    opened = Sink(upstream=upstream)
    with _Server(("127.0.0.1", 0), partial(_Handler, opened)) as server:
        opened.endpoint = f"http://127.0.0.1:{server.server_port}"
        if misbehave:
            opened.misbehave = misbehave
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield opened
        finally:
            opened.closed.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: that connections break is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, sink: Sink, *connection: Any) -> None:  # noqa: ANN401 - the library's own
        self.sink = sink
        super().__init__(*connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _serve(self) -> None:
        self.sink.requests.append((self.command, self.path))
        fault = self.sink.misbehave(self.command, self.path)
        length = int(self.headers.get("content-length", 0))
        if fault is Fault.CUT and length:
            self.rfile.read(min(length, BYTES_BEFORE_CUT))
            self.close_connection = True
            return
        body = self.rfile.read(length)
        match fault:
            case Fault.HANG:
                self.sink.closed.wait()
                self.close_connection = True
            case Fault.REFUSE:
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            case Fault.FORBID:
                self._answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
            case Fault.REDIRECT:
                self._answer(302, {"location": f"{self.sink.elsewhere}{self.path}"}, b"")
            case Fault.MUTE:
                self._pass_on(body)
                self.close_connection = True
            case Fault.CUT:
                status, headers, answer = self._pass_on(body)
                self._answer(status, headers, answer[: len(answer) // 2], length=len(answer))
                self.close_connection = True
            case None:
                self._answer(*self._pass_on(body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

    def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        address = urlsplit(self.sink.upstream).netloc
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, *, length: int | None = None
    ) -> None:
        names = {name.lower(): value for name, value in headers.items()}
        names.pop("transfer-encoding", None)
        if self.command == "HEAD":
            body = b""  # else it would be taken for the answer to the next request
        else:
            names["content-length"] = str(len(body) if length is None else length)
        self.send_response_only(status)
        for name, value in names.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
