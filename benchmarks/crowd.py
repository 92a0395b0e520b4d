"""Many clients that request one URL, each over its own connection.

``python -m benchmarks.crowd URL COUNT OVER_S BEGIN_AT``. The clients start at BEGIN_AT (of
``time.time()``), spread evenly over OVER_S seconds; with 0, as fast as one core can start them.
Each follows redirects to the same server, and reads the body of a 200 to its end. Prints a JSON
list of ``[outcome, begun_at, ended_at]``, where the outcome is the last status, or "lost".
"""

import errno
import json
import re
import select
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

BATCH = 16
"""Clients to start before reading responses, so that reading does not delay the starts."""

READ_BYTES = 1 << 16
TIMEOUT_S = 110.0
LOST = "lost"

ADDRESSES = 250
"""Number of client addresses, from 127.1.0.1 on. Each has its own ports and its own limits."""

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux chooses the port at connect, so that one address can have more connections."""

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LOCATION = re.compile(rb"\r\nlocation: *([^\r]*)\r\n", re.IGNORECASE)


def _has_more(head: bytes) -> bool:
    return head.startswith(b"HTTP/1.1 200 ")


@dataclass(slots=True, kw_only=True)
class Client:
    """One client. It opens a new ``connection`` after each redirect."""

    address: str
    begun_at: float
    target: str
    connection: socket.socket
    sent: bool = False
    head: bytes = b""


class Crowd:
    """``answers`` has one entry for each client that has finished."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._origin = f"{split.scheme}://{split.netloc}"
        self._peer = split.hostname, split.port
        self._target = url.removeprefix(self._origin)
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self.answers: list[tuple[str, float, float]] = []

    def run(self, count: int, *, over_s: float, begin_at: float) -> None:
        """Return when all *count* clients have finished, or the timeout is over."""
        time.sleep(max(0.0, begin_at - time.time()))
        begun = 0
        while len(self.answers) < count and time.time() < begin_at + TIMEOUT_S:
            due = int(count * (time.time() - begin_at) / over_s) if over_s else count
            for number in range(begun, min(count, due, begun + BATCH)):
                self._connect(f"127.1.0.{number % ADDRESSES + 1}", self._target, time.time())
                begun += 1
            for descriptor, _ in self._poll.poll(0 if begun < count else 1):
                self._go_on(self._clients[descriptor])
        self.answers += [(LOST, each.begun_at, time.time()) for each in self._clients.values()]

    def _connect(self, address: str, target: str, begun_at: float) -> None:
        connection = socket.socket()
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((address, 0))
        refused = connection.connect_ex(self._peer) not in {0, errno.EINPROGRESS}
        client = Client(address=address, begun_at=begun_at, target=target, connection=connection)
        if refused:
            self._leave(client, LOST)
            return
        self._clients[connection.fileno()] = client
        self._poll.register(connection, select.EPOLLOUT)

    def _go_on(self, client: Client) -> None:
        """Send or read: the client's connection is ready."""
        with suppress(OSError):
            if not client.sent:
                client.connection.sendall(self._request(client.target))
                client.sent = True
                self._poll.modify(client.connection, select.EPOLLIN)
                return
            received = client.connection.recv(READ_BYTES)
            if b"\r\n\r\n" not in client.head:
                client.head += received
            if received and (b"\r\n\r\n" not in client.head or _has_more(client.head)):
                return
        del self._clients[client.connection.fileno()]
        self._take(client)

    def _request(self, target: str) -> bytes:
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {self._origin.partition('//')[2]}",
            "Connection: close",
            "",
            "",
        ]
        return "\r\n".join(lines).encode()

    def _take(self, client: Client) -> None:
        """Follow a redirect, or finish with the response."""
        head, location = _HEAD.match(client.head), _LOCATION.search(client.head)
        status = head[1].decode() if head else LOST
        target = location[1].decode().removeprefix(self._origin) if location else ""
        if status == "302" and target.startswith("/"):
            client.connection.close()
            self._connect(client.address, target, client.begun_at)
        else:
            self._leave(client, status)

    def _leave(self, client: Client, outcome: str) -> None:
        client.connection.close()
        self.answers.append((outcome, client.begun_at, time.time()))


def main(url: str, count: str, over_s: str, begin_at: str) -> None:
    crowd = Crowd(url)
    crowd.run(int(count), over_s=float(over_s), begin_at=float(begin_at))
    print(json.dumps(crowd.answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
