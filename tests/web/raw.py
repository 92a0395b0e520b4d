"""Sends the exact bytes of a request target to a server, and reads the response."""

import json
import socket
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class RawResponse:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is JSON
        return json.loads(self.body)


def request(
    port: int, target: bytes, *, method: bytes = b"GET", host: bytes = b"h", headers: bytes = b""
) -> RawResponse:
    request_head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%bConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(request_head % (method, target, host, headers))
        response = b""
        while chunk := connection.recv(65536):
            response += chunk
    head, _, body = response.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return RawResponse(
        status=int(status_line.split(" ")[1]),
        headers={name.lower(): value for name, value in pairs},
        body=body,
    )
