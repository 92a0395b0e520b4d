"""What the stand-ins for hosts and regions share: HTTP/1.1 on loopback, and no word about it."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args: object) -> None:
        """Say nothing: that takes time."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """Say nothing when a client leaves early: it sees its own failure."""


def serve(port: int, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
    """Serve until the process is ended."""
    with _QuietServer(("127.0.0.1", port), handler) as server:
        server.serve_forever()
