"""A server with scripted responses."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response. If the body is shorter than its Content-Length, the connection breaks off.

    The body is repeated ``times``, or until the client disconnects.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1


Responder = Callable[[Mapping[str, str]], Response]
"""Returns the response to a request with these headers."""


def ranged(content: bytes, *, broken_at: int | None = None, status: int = 206) -> Responder:
    """Return an S3 object that supports range requests.

    Each response breaks off after ``broken_at`` bytes. ``status`` is that of a part, which is 200
    for rclone.
    """

    def respond(headers: Mapping[str, str]) -> Response:
        first, _, last = headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), int(last or len(content) - 1) + 1
        body = content[start:end]
        size = {"Content-Length": str(len(body))}
        if "Range" not in headers:
            return Response(headers=size, body=body[:broken_at])
        part = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        return Response(status=status, headers=size | part, body=body[:broken_at])

    return respond


@dataclass(slots=True, kw_only=True)
class ScriptedServer:
    """Sends the responses of each path in order, and repeats the last.

    Records ``requests``, and the ``bodies`` of those that have one.
    """

    url: str = ""
    responses: dict[str, list[Response | Responder]] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def respond(self, path: str, *responses: Response | Responder) -> None:
        """Set the responses for *path*, which may include a query."""
        self.responses[path] = list(responses)

    def next(self, target: str, headers: Mapping[str, str]) -> Response:
        responses = self.responses.get(target) or self.responses.get(target.partition("?")[0])
        if not responses:
            return Response(status=404)
        response = responses.pop(0) if len(responses) > 1 else responses[0]
        return response if isinstance(response, Response) else response(headers)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers)))
            response = server.next(self.path, dict(self.headers))
            size = {"Content-Length": str(len(response.body))} if response.times == 1 else {}
            self.send_response(response.status)
            for name, value in {**size, **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(response.times):
                    self.wfile.write(response.body)
            self.close_connection = True

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            server.bodies.append(self.rfile.read(size))
            self.do_GET()

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{httpd.server_port}"
        yield server
        httpd.shutdown()
        thread.join()
