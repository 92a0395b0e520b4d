"""A host that answers every request with a refusal, or with nothing, while a test says so."""

import contextlib
import socket
from collections.abc import Iterator

from tests.parts.slow_host import SlowHost, serving


def refusal(status: str, *, retry_after_s: int | None = None) -> bytes:
    """Return a whole response, after which the connection is closed."""
    delay = f"Retry-After: {retry_after_s}\r\n" if retry_after_s is not None else ""
    return f"HTTP/1.1 {status}\r\n{delay}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()


SILENCE = b""
"""In the place of a refusal: the host accepts a request, and never answers."""


class BusyHost(SlowHost):
    """Forwards to *port*, unless there is a ``refusal``. ``refused`` are the requests that got one.

    Each connection has one request, as those of Archiver.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.refusal: bytes | None = None
        self.refused: list[str] = []

    def _handle(self, client: socket.socket) -> None:
        if self.refusal is None:
            super()._handle(client)
        else:
            self._sockets.add(client)
            self._start_thread(self._refuse, client)

    def _refuse(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = client.recv(65536)
            self.refused.append(head.split(b" ")[1].decode() if head else "")
            if self.refusal:
                client.sendall(self.refusal)
                client.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def busy_host(port: int) -> Iterator[BusyHost]:
    """Yield a proxy for the server on a loopback *port*."""
    with serving(BusyHost(port)) as host:
        yield host
