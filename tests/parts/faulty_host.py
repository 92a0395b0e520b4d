"""An HTTP host that sends exactly the bytes, pauses and resets that a test scripts."""

import contextlib
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

CHUNK_BYTES = 8192
NONE: Mapping[str, str] = MappingProxyType({})


class Break(Enum):
    """How a connection ends, other than by a close. It is the last step of a script."""

    RESET = auto()


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """A pause until *happened* is set."""

    happened: threading.Event


@dataclass(frozen=True, slots=True)
class Forever:
    """Sends *piece* repeatedly, until the client disconnects."""

    piece: bytes
    every_s: float = 0.0


Step = bytes | Pause | Until | Break | Forever


def head(headers: Mapping[str, str], status: str = "200 OK") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def sized(
    body: bytes,
    status: str = "200 OK",
    headers: Mapping[str, str] = NONE,
    *,
    missing: int = 0,
) -> bytes:
    """Return a response whose Content-Length is *missing* bytes larger than its body."""
    length = str(len(body) + missing)
    return head({**headers, "Content-Length": length}, status) + body


def until_close(body: bytes, status: str = "200 OK", headers: Mapping[str, str] = NONE) -> bytes:
    """Return a response whose body ends when the connection closes."""
    return head({**headers, "Connection": "close"}, status) + body


def chunked(
    body: bytes,
    status: str = "200 OK",
    headers: Mapping[str, str] = NONE,
    *,
    ended: bool = True,
) -> bytes:
    """Return a chunked response, with the final empty chunk only if it is *ended*."""
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + CHUNK_BYTES]), body[at : at + CHUNK_BYTES])
        for at in range(0, len(body), CHUNK_BYTES)
    )
    end = b"0\r\n\r\n" if ended else b""
    return head({**headers, "Transfer-Encoding": "chunked"}, status) + chunks + end


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A received request. ``at`` is from ``time.monotonic``; header names are in lower case."""

    at: float
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


class FaultyHost(socketserver.ThreadingTCPServer):
    """Plays the script of the requested target, then closes. Unknown targets are 404.

    ``requests`` are all requests in order of arrival. ``most_at_once`` is the largest number of
    requests that were in a pause at the same time.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Player)
        self.requests: list[Request] = []
        self.scripts: dict[str, tuple[Step, ...]] = {}
        self.closing = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def template(self) -> str:
        return f"{self.url}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]

    def script(self, target: str, *steps: Step) -> str:
        """Set the steps for requests of *target*, and return its URL."""
        self.scripts[target] = steps
        return f"{self.url}{target}"

    def steps(self, request: Request) -> tuple[Step, ...]:
        """Return the script for *request*."""
        return self.scripts.get(request.target, (sized(b"", "404 Not Found"),))

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the block as a pause. The count drops before the next byte is sent."""
        with self._counting:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield
        with self._counting:
            self._at_once -= 1


class _Player(socketserver.StreamRequestHandler):
    server: FaultyHost

    def handle(self) -> None:
        request = self._read_request()
        if request:
            self.server.requests.append(request)
            with contextlib.suppress(ConnectionError):
                for step in self.server.steps(request):
                    self._play(step)

    def _read_request(self) -> Request | None:
        lines = []
        while line := self.rfile.readline().rstrip().decode("latin-1"):
            lines.append(line)
        if not lines:
            return None
        method, target, _ = lines[0].split(" ")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        headers = {name.lower(): value for name, value in headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))  # else a close is a reset
        return Request(
            at=time.monotonic(), method=method, target=target, headers=headers, body=body
        )

    def _play(self, step: Step) -> None:
        match step:
            case Pause(seconds):
                with self.server.counted():
                    self.server.closing.wait(seconds)
            case Until(happened):
                with self.server.counted():
                    while not (happened.wait(0.02) or self.server.closing.is_set()):
                        pass
            case Forever(piece, every_s):
                while not self.server.closing.wait(every_s):
                    self.wfile.write(piece)
            case Break.RESET:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                os.close(self.connection.detach())  # skips the server's own FIN
            case _:
                self.wfile.write(step)


@contextlib.contextmanager
def faulty_host() -> Iterator[FaultyHost]:
    """Yield a host on a free loopback port."""
    with FaultyHost() as host, serving(host):
        yield host


@contextlib.contextmanager
def serving(host: FaultyHost) -> Iterator[None]:
    """Serve *host* in a thread while the block runs."""
    thread = threading.Thread(target=host.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        host.closing.set()
        host.shutdown()
        thread.join(5)
