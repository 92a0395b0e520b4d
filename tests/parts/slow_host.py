"""A TCP proxy in front of a real host that records request targets and can limit the rate."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

_REQUEST_LINE = re.compile(rb"^(?:GET|HEAD|POST) (\S+) HTTP/1", re.MULTILINE)
_TICKS_PER_S = 20

H = TypeVar("H", bound="SlowHost")


class SlowHost:
    """Forwards to *port*. ``rate`` limits the bytes per second to the client, None does not."""

    def __init__(self, port: int) -> None:
        self.rate: int | None = None
        self.targets: list[str] = []
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = {self._listener}
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def archives(self) -> list[str]:
        """Return the targets of all archive requests so far."""
        return [target for target in self.targets if "/archive/" in target]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._handle(client)

    def _handle(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._port))
        self._sockets |= {client, server}
        self._start_thread(self._forward_requests, client, server)
        self._start_thread(self._forward_responses, server, client)

    def _start_thread(self, direction: object, *ends: socket.socket) -> None:
        thread = threading.Thread(target=direction, args=ends, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self.targets += [m.decode("ascii") for m in _REQUEST_LINE.findall(data)]
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _forward_responses(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(self._chunk_bytes()):
                client.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
            client.shutdown(socket.SHUT_WR)

    def _chunk_bytes(self) -> int:
        return max(1, self.rate // _TICKS_PER_S) if self.rate else 65536

    def cut(self) -> None:
        """Close all open connections. New connections are accepted."""
        self._close_sockets(self._sockets - {self._listener})

    def close(self) -> None:
        """Close all open connections and refuse new ones."""
        self._close_sockets(self._sockets)
        for thread in self._threads:
            thread.join(5)

    def _close_sockets(self, sockets: set[socket.socket]) -> None:
        for open_socket in tuple(sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()


@contextlib.contextmanager
def slow_host(port: int) -> Iterator[SlowHost]:
    """Yield a proxy for the server on a loopback *port*."""
    with serving(SlowHost(port)) as host:
        yield host


@contextlib.contextmanager
def serving(host: H) -> Iterator[H]:
    """Yield *host* while it serves."""
    accepting = threading.Thread(target=host.serve, daemon=True)
    accepting.start()
    try:
        yield host
    finally:
        host.close()
        accepting.join(5)
