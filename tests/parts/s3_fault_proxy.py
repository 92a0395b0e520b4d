"""An HTTP proxy in front of a real S3 server that injects faults into chosen requests."""

import http.client
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.parts.s3_strictness import Strictness

BYTES_BEFORE_CUT = 100_000


class Fault(Enum):
    """How the proxy fails a request."""

    HANG = auto()
    """Reads the request and never responds."""

    STALL = auto()
    """Reads the request, and closes the connection once ``misbehave`` returns something else."""

    REFUSE = auto()
    """Responds with 503."""

    FORBID = auto()
    """Responds with 403, which clients do not retry."""

    CUT = auto()
    """Closes the connection in the middle of the request body, or else of the response body."""

    REDIRECT = auto()
    """Redirects to ``elsewhere``."""

    MUTE = auto()
    """Forwards the request, and closes the connection without a response."""

    RESET = auto()
    """Like ``CUT``, with a reset in place of a close."""

    FAIL = auto()
    """Responds with 500."""

    EXPIRE = auto()
    """Responds with 403, as if the credentials had expired."""

    SKEW = auto()
    """Responds with 403, as if the clocks differed by more than 15 minutes."""

    ARCHIVE = auto()
    """Responds with 403, as if the object were in Glacier."""

    CONFLICT = auto()
    """Responds with 409 to a conditional write, as if another write were under way."""

    EXISTS = auto()
    """Forwards a conditional write and responds with 412, like a repetition whose first response
    was lost."""

    UNSUPPORTED = auto()
    """Responds with 501 to a conditional write."""

    LATE_ERROR = auto()
    """Responds with 200 and an error in the body."""


_CONDITIONAL = {Fault.CONFLICT, Fault.EXISTS, Fault.UNSUPPORTED}

_ERRORS = {
    Fault.REFUSE: (503, b"SlowDown"),
    Fault.FORBID: (403, b"AccessDenied"),
    Fault.FAIL: (500, b"InternalError"),
    Fault.EXPIRE: (403, b"ExpiredToken"),
    Fault.SKEW: (403, b"RequestTimeTooSkewed"),
    Fault.ARCHIVE: (403, b"InvalidObjectState"),
    Fault.CONFLICT: (409, b"ConditionalRequestConflict"),
    Fault.EXISTS: (412, b"PreconditionFailed"),
    Fault.UNSUPPORTED: (501, b"NotImplemented"),
    Fault.LATE_ERROR: (200, b"InternalError"),
}

_ERROR = b"<Error><Code>%s</Code></Error>"

Misbehave = Callable[[str, str], Fault | None]
"""Returns the fault for a request with this method and target, or None to forward it."""


class S3FaultProxy:
    """An endpoint that forwards requests to ``upstream`` unless ``misbehave`` returns a fault.

    ``on_request`` is called before that, with the method, the target and the port of the client.
    With ``strictness``, the clock and the region of the upstream are others.
    """

    def __init__(self, *, upstream: str) -> None:
        self.endpoint = ""
        self.upstream = upstream
        self.elsewhere = ""
        self.requests: list[tuple[str, str]] = []
        self.misbehave: Misbehave = lambda _method, _target: None
        self.on_request: Callable[[str, str, int], None] = lambda _method, _target, _port: None
        self.strictness: Strictness | None = None
        self.closed = threading.Event()


@contextmanager
def sink(upstream: str, misbehave: Misbehave | None = None) -> Iterator[S3FaultProxy]:
    """Yield a proxy for *upstream* on a loopback port."""
    opened = S3FaultProxy(upstream=upstream)
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
        """Print nothing: broken connections are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, sink: S3FaultProxy, *connection: Any) -> None:  # noqa: ANN401 - as in the library
        self.sink = sink
        super().__init__(*connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Print nothing."""

    def _serve(self) -> None:
        self.sink.requests.append((self.command, self.path))
        self.sink.on_request(self.command, self.path, self.client_address[1])
        fault = self.sink.misbehave(self.command, self.path)
        if fault in _CONDITIONAL and "if-none-match" not in self.headers:
            fault = None
        length = int(self.headers.get("content-length", 0))
        if fault in {Fault.CUT, Fault.RESET} and length:
            self.rfile.read(min(length, BYTES_BEFORE_CUT))
            self._break(fault)
            return
        body = self.rfile.read(length)
        match fault:
            case Fault.HANG | Fault.STALL:
                self._hang(fault)
            case Fault.REDIRECT:
                self._respond(302, {"location": f"{self.sink.elsewhere}{self.path}"}, b"")
            case Fault.MUTE:
                self._forward(body)
                self.close_connection = True
            case Fault.CUT | Fault.RESET:
                status, headers, whole = self._forward(body)
                self._respond(status, headers, whole[: len(whole) // 2], length=len(whole))
                self._break(fault)
            case None:
                self._answer(body)
            case _:
                if fault is Fault.EXISTS:
                    self._forward(body)
                status, code = _ERRORS[fault]
                self._respond(status, {}, _ERROR % code)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

    def _answer(self, body: bytes) -> None:
        strict = self.sink.strictness
        if strict and (refusal := strict.refusal(self.path, self.headers)):
            status, code = refusal
            self._respond(status, {"date": strict.date()}, _ERROR % code)
            return
        status, headers, answer = self._forward(body)
        headers = {name.lower(): value for name, value in headers.items()}
        self._respond(status, headers | ({"date": strict.date()} if strict else {}), answer)

    def _hang(self, fault: Fault) -> None:
        """Keep the client waiting: for ever, or as long as the proxy is to stall."""
        self.close_connection = True
        while not self.sink.closed.wait(0.05):
            if fault is Fault.STALL and self.sink.misbehave(self.command, self.path) is not fault:
                return

    def _break(self, fault: Fault) -> None:
        self.close_connection = True
        if fault is Fault.RESET:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())  # skips the server's own FIN

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
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

    def _respond(
        self, status: int, headers: dict[str, str], body: bytes, *, length: int | None = None
    ) -> None:
        names = {name.lower(): value for name, value in headers.items()}
        names.pop("transfer-encoding", None)
        if self.command == "HEAD":
            body = b""  # a body would be parsed as the response to the next request
        else:
            names["content-length"] = str(len(body) if length is None else length)
        self.send_response_only(status)
        for name, value in names.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
