"""Connections that end at the deadline of their request, and notice a response that was cut off."""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from archiver.client.deadline import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STEP_S = 1.0
"""The longest wait for bytes at a time, so that a deadline that is cancelled ends it soon."""

Address = Any
"""The address of a socket, whose form depends on its family."""

AddressInfo = tuple[int, int, int, str, Address]
"""What ``socket.getaddrinfo`` returns."""

_deadline: ContextVar[Deadline] = ContextVar("deadline")


@contextmanager
def ending_at(deadline: Deadline) -> Iterator[None]:
    """Have the requests that begin in this block end at *deadline*, with their responses."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


class CutOff(http.client.RemoteDisconnected):
    """The connection ended before the empty line after the headers."""


class _BoundedStream(io.RawIOBase):
    """Reads from a socket until the deadline of its request. The *stream* has it open.

    The timeout of a socket begins again with each byte. A peer that sends one now and then would
    never meet it, so the headers as a whole must arrive in that time, too.
    """

    def __init__(self, sock: socket.socket, stream: io.RawIOBase) -> None:
        self._sock = sock
        self._stream = stream
        self._deadline = _deadline.get()
        self._silence_s = sock.gettimeout() or 0.0
        self._head_until = time.monotonic() + self._silence_s
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Return how many bytes came. Raises the deadline's failure, or a timeout."""
        until = self._head_until if self.in_head else time.monotonic() + self._silence_s
        while True:
            left_s = min(STEP_S, self._deadline.left_s, until - time.monotonic())
            if left_s <= 0:
                raise socket.timeout("timed out")
            self._sock.settimeout(left_s)
            try:
                return self._sock.recv_into(buffer)
            except socket.timeout:
                continue

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Reader(io.BufferedReader):
    """Raises CutOff at the end of the connection as long as the headers are not complete.

    http.client takes the end for an empty line.
    """

    raw: _BoundedStream

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self.raw.in_head and not line.endswith(b"\n") and len(line) != size:
            raise CutOff("the headers have no end")
        return line


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._stream = _BoundedStream(sock, self.fp.detach())
        self.fp = _Reader(self._stream)

    def begin(self) -> None:
        super().begin()
        self._stream.in_head = False


class _Connecting(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        """Return a socket that is connected to the first address that responds in time.

        urllib3 allows the whole time for each address.
        """
        failure: OSError = OSError("the name has no address")
        for address in self._addresses():
            try:
                return self._connect_to(*address)
            except OSError as exc:  # noqa: PERF203 - few addresses
                failure = exc
        if isinstance(failure, socket.timeout):
            raise ConnectTimeoutError(self, "timed out") from failure
        raise NewConnectionError(self, "no connection") from failure

    def _addresses(self) -> Sequence[AddressInfo]:
        """Return the addresses of the host. A thread asks, since only the system limits that."""
        answers: SimpleQueue[Sequence[AddressInfo] | Exception] = SimpleQueue()
        host = self._dns_host.strip("[]")
        threading.Thread(target=_resolve, args=(host, self.port, answers), daemon=True).start()
        deadline, until = _deadline.get(), time.monotonic() + (self.timeout or math.inf)
        while (left_s := min(STEP_S, deadline.left_s, until - time.monotonic())) > 0:
            with suppress(Empty):
                answer = answers.get(timeout=left_s)
                if isinstance(answer, socket.gaierror):
                    raise NameResolutionError(self.host, self, answer) from answer
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise ConnectTimeoutError(self, "timed out")

    def _connect_to(
        self, family: int, kind: int, protocol: int, _name: str, address: Address
    ) -> socket.socket:
        deadline = _deadline.get()
        sock = socket.socket(family, kind, protocol)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(min(self.timeout or math.inf, deadline.left_s))
            sock.connect(address)
            sock.settimeout(min(self.timeout or math.inf, deadline.left_s))
        except BaseException:
            sock.close()
            raise
        return sock


def _resolve(host: str, port: int, answers: SimpleQueue[Sequence[AddressInfo] | Exception]) -> None:
    try:
        answers.put(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM))
    except Exception as exc:  # noqa: BLE001 - it is raised in the thread that waits
        answers.put(exc)


class _TlsConnecting(_Connecting, HTTPSConnection):
    """The same for https."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connecting


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnecting


def limit_connections(manager: urllib3.PoolManager) -> None:
    """Have the *manager* open connections of this module. Requests need ``ending_at``."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
