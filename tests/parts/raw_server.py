"""A server that writes any bytes to its connections, at any pace."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handler = Callable[[socket.socket, bytes], None]
"""Responds to a request, of which it gets the head. The connection is closed afterwards."""

END = b"\r\n\r\n"


@contextmanager
def raw_server(handle: Handler, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Yield the address ``host:port`` of a server. All connections end with the block."""
    opened: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            link = tls.wrap_socket(connection, server_side=True) if tls else connection
            opened.append(link)
            with link:
                head = b""
                while END not in head and (received := link.recv(65_536)):
                    head += received
                handle(link, head)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for link in (listener, *opened):
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)


def redirect(location: str, sha256: str, size_bytes: int, node: str) -> bytes:
    """Return a whole response of Archiver that leads to an archive."""
    headers = (
        f"Location: {location}",
        "Connection: close",
        "Content-Length: 0",
        "Archiver-Region: us-west-2",
        f"Archiver-Node: {node}",
        f"Archiver-SHA256: {sha256}",
        f"Archiver-Size: {size_bytes}",
    )
    return "\r\n".join(("HTTP/1.1 302 Found", *headers, "", "")).encode()
