"""An HTTP/1.1 server on loopback without a log, for stand-ins of hosts and regions."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args: object) -> None:
        """Log nothing, to save time."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """Ignore clients that disconnect early: they report their own failure."""


def serve(port: int, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
    """Serve until the process is stopped."""
    with _QuietServer(("127.0.0.1", port), handler) as server:
        server.serve_forever()
