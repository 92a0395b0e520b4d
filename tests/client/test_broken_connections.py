"""Connections that end or become slow anywhere in a response."""

import asyncio
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from archiver.client import ArchiveRequest, Client, TimedOut, download, transport
from archiver.client.async_client import AsyncClient
from archiver.client.failures import NoResponse
from tests.client.responses import CONTENT, NODE, SHA256, STATUS
from tests.parts.raw_server import Handler, raw_server, redirect
from tests.parts.secured_nats import Certificates

ASH = ArchiveRequest("hgmo", "projects/ash", "default")
FOUND = redirect("http://127.0.0.1:9/archive.tar.gz", SHA256, len(CONTENT), NODE)
ACCEPTED = f"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:9{STATUS}/x"
PROBLEM = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"
    b'Content-Length: 22\r\n\r\n{"code":"unknown_rev"}'
)


def cuts(response: bytes, every: int = 5) -> Iterator[bytes]:
    """Yield beginnings of a response, among them all that end close to the end of its headers."""
    end = response.index(b"\r\n\r\n") + 4
    for length in (*range(0, end, every), *range(end - 8, len(response))):
        yield response[:length]


@pytest.mark.parametrize(
    "whole", (FOUND, ACCEPTED.encode() + b"\r\n\r\n", PROBLEM), ids=("302", "202", "404")
)
def test_a_response_without_its_end_is_a_broken_connection(whole: bytes) -> None:
    sent = cuts(whole)

    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(next(sent))

    with raw_server(handle) as address, Client(f"http://{address}") as client:
        for _ in cuts(whole):
            with pytest.raises(NoResponse):
                client.locate(ASH)


@pytest.fixture
def tls(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return what a server needs that clients trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    return context


def test_a_response_without_its_end_is_a_broken_connection_with_tls(tls: ssl.SSLContext) -> None:
    sent = chain(cuts(FOUND, every=40), [FOUND])

    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(next(sent))

    with raw_server(handle, tls) as address, Client(f"https://{address}") as client:
        for _ in cuts(FOUND, every=40):
            with pytest.raises(NoResponse):
                client.locate(ASH)
        assert client.locate(ASH).sha256 == SHA256


def test_a_download_goes_on_after_headers_without_their_end(tmp_path: Path) -> None:
    size = f"Content-Length: {len(CONTENT)}\r\n\r\n".encode()
    whole = b"HTTP/1.1 200 OK\r\n" + size + CONTENT
    sent = chain([whole[:19], whole[:37], whole[: 17 + len(size) - 2]], repeat(whole))

    def handle(connection: socket.socket, head: bytes) -> None:
        leads = b" /archiver/" in head
        target = f"http://{address}/archive.tar.gz"
        found = redirect(target, SHA256, len(CONTENT), NODE)
        connection.sendall(found if leads else next(sent))

    with raw_server(handle) as address, Client(f"http://{address}") as client:
        client.get(ASH, str(tmp_path / "here"))
    assert (tmp_path / "here").read_bytes() == CONTENT


def dripping(first: bytes, unit: bytes) -> Handler:
    """Return a handler that sends *unit* again and again, until the client has left."""

    def handle(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(unit)
            time.sleep(0.02)

    return handle


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status line": (b"", b"H"),
    "header": (OK + b"X: ", b"y"),
    "headers": (OK, b"X: y\r\n"),
    "100-continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (OK + f"Content-Length: {len(CONTENT)}\r\n\r\n".encode(), b"y"),
    "body without length": (OK + b"\r\n", b"y"),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n"),
    "size of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize(("first", "unit"), DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("parallel", (False, True), ids=("alone", "parallel"))
def test_no_pace_keeps_a_call_beyond_its_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, unit: bytes, *, parallel: bool
) -> None:
    if parallel:
        monkeypatch.setattr(download, "PARALLEL_MIN_BYTES", 1)
    drip = dripping(first, unit)

    def lead(connection: socket.socket, _head: bytes) -> None:
        target = f"http://{s3}/archive.tar.gz"
        connection.sendall(redirect(target, SHA256, len(CONTENT), NODE))

    with raw_server(drip) as s3, raw_server(lead) as archiver, raw_server(drip) as slow:
        for address in (slow, archiver):
            with Client(f"http://{address}", timeout_s=0.3) as client, pytest.raises(TimedOut):
                client.get(ASH, str(tmp_path / "here"))


@pytest.mark.parametrize(("first", "unit"), DRIPS.values(), ids=DRIPS)
def test_no_pace_keeps_a_call_beyond_its_timeout_with_tls(
    tls: ssl.SSLContext, first: bytes, unit: bytes
) -> None:
    with (
        raw_server(dripping(first, unit), tls) as address,
        Client(f"https://{address}", timeout_s=0.5) as client,
        pytest.raises(TimedOut),
    ):
        client.locate(ASH)


def test_a_silent_tunnel_keeps_no_call_beyond_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(dripping(OK, b"X: y\r\n")) as address:
        monkeypatch.setenv("https_proxy", f"http://{address}")
        with (
            Client("https://archiver.test", timeout_s=0.3) as client,
            pytest.raises(TimedOut),
        ):
            client.locate(ASH)


def test_a_silent_name_server_keeps_no_call_beyond_its_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: asked.wait())
    try:
        with Client("http://archiver.test", timeout_s=0.2) as client, pytest.raises(TimedOut):
            client.locate(ASH)
        monkeypatch.setattr(transport, "CONNECT_S", 0.2)
        with Client("http://archiver.test") as client, pytest.raises(NoResponse, match="timed out"):
            client.locate(ASH)
    finally:
        asked.set()


def test_headers_that_do_not_end_are_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SILENCE_S", 0.2)
    with (
        raw_server(dripping(OK, b"X: y\r\n")) as address,
        Client(f"http://{address}", timeout_s=None) as client,
        pytest.raises(NoResponse, match="timed out"),
    ):
        client.locate(ASH)


def test_a_cancelled_call_leaves_a_silent_server() -> None:
    asked, ended = threading.Event(), threading.Event()

    def handle(connection: socket.socket, _head: bytes) -> None:
        asked.set()
        connection.recv(1)  # until the client has left
        ended.set()

    async def cancel() -> None:
        call = asyncio.create_task(AsyncClient(Client(f"http://{address}")).locate(ASH))
        await asyncio.to_thread(asked.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with raw_server(handle) as address:
        asyncio.run(cancel())  # waits for the thread
        assert ended.wait(5)


@pytest.mark.parametrize("timeout_s", (None, math.inf, 1e12, 1e308))
def test_a_timeout_may_be_as_long_as_one_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None
) -> None:
    monkeypatch.setattr(download, "PARALLEL_MIN_BYTES", 1)
    part = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    sent = f"Content-Length: {len(CONTENT)}\r\nContent-Range: {part}\r\n\r\n"

    def handle(connection: socket.socket, head: bytes) -> None:
        found = redirect(f"http://{address}/a.tar.gz", SHA256, len(CONTENT), NODE)
        leads = b" /archiver/" in head
        connection.sendall(found if leads else OK + sent.encode() + CONTENT)

    with raw_server(handle) as address, Client(f"http://{address}", timeout_s=timeout_s) as client:
        client.get(ASH, str(tmp_path / "here"))
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_a_timeout_that_is_no_number_ends_at_once() -> None:
    with Client("http://127.0.0.1:9", timeout_s=math.nan) as client, pytest.raises(TimedOut):
        client.locate(ASH)
