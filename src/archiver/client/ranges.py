"""Downloads an object over several connections at a time, and yields its bytes in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import urllib3

from archiver.client.api_response import Located
from archiver.client.deadline import Deadline
from archiver.client.failures import RetryLater
from archiver.client.transport import NETWORK_ERRORS, Transport, reason

PARALLEL_MIN_BYTES = 64 * 1024**2
"""One connection is enough for less."""
CONNECTIONS = 4
PIECE_BYTES = 8 * 1024**2
CHUNK_BYTES = 1024 * 1024
OK, PARTIAL = 200, 206


class NoRanges(Exception):
    """The server ignored the range of a request."""


@dataclass
class Piece:
    """The first bytes of a piece, or all of them. ``failure`` is why the rest is missing."""

    chunks: deque[bytes] = field(default_factory=deque)
    failure: Exception | None = None


class Ranges:
    """Downloads pieces in threads, a few ahead of the one that is read.

    Memory stays below ``PIECE_BYTES`` for each connection, and one more.
    """

    def __init__(
        self, *, transport: Transport, located: Located, start: int, deadline: Deadline
    ) -> None:
        self._transport = transport
        self._located = located
        self._deadline = deadline
        self._starts = iter(range(start, located.size_bytes, PIECE_BYTES))
        self._start = start
        self._changed = threading.Condition()
        self._pieces: dict[int, Piece] = {}
        self._room = CONNECTIONS + 1
        self._closed = False
        self._responses: set[urllib3.BaseHTTPResponse] = set()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes from *start* on. Raises RetryLater, or NoRanges before the first byte."""
        with self._threads():
            for start in range(self._start, self._located.size_bytes, PIECE_BYTES):
                piece = self._take(start)
                while piece.chunks:
                    yield piece.chunks.popleft()
                if piece.failure:
                    raise piece.failure

    @contextmanager
    def _threads(self) -> Iterator[None]:
        for _ in range(CONNECTIONS):
            threading.Thread(target=self._download_pieces, daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
                for response in self._responses:
                    # its thread may end with it meanwhile
                    with suppress(OSError, ValueError, RuntimeError):
                        response.shutdown()

    def _take(self, start: int) -> Piece:
        with self._changed:
            while start not in self._pieces:
                self._changed.wait(self._deadline.left_s)
            piece = self._pieces.pop(start)
            self._room += 1
            self._changed.notify_all()
        return piece

    def _download_pieces(self) -> None:
        while (start := self._next_start()) is not None:
            piece = Piece()
            try:
                self._download(start, piece.chunks)
            except Exception as exc:  # noqa: BLE001 - it is raised where the piece is read
                piece.failure = exc
            with self._changed:
                self._pieces[start] = piece
                self._changed.notify_all()

    def _next_start(self) -> int | None:
        """Return the start of the next piece once there is room for it; None at the end."""
        with self._changed:
            while not self._room and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._room -= 1
            return next(self._starts, None)

    def _download(self, start: int, chunks: deque[bytes]) -> None:
        """Append the piece to *chunks*."""
        located = self._located
        end = min(start + PIECE_BYTES, located.size_bytes)
        headers = {"Range": f"bytes={start}-{end - 1}"}
        missing = end - start
        try:
            with (
                self._transport.get(located.url, headers, self._deadline) as response,
                self._registered(response),
            ):
                self._require_part(response, start, end)
                while missing and (chunk := response.read(min(missing, CHUNK_BYTES))):
                    chunks.append(chunk)
                    missing -= len(chunk)
        except NETWORK_ERRORS as exc:
            raise RetryLater(f"the download from {located.label} broke off{reason(exc)}") from exc
        if missing:
            raise RetryLater(f"the download from {located.label} broke off")

    @contextmanager
    def _registered(self, response: urllib3.BaseHTTPResponse) -> Iterator[None]:
        with self._changed:
            self._responses.add(response)
        try:
            yield
        finally:
            with self._changed:
                self._responses.discard(response)

    def _require_part(self, response: urllib3.BaseHTTPResponse, start: int, end: int) -> None:
        """Raise NoRanges or RetryLater unless the body is what was requested.

        rclone's S3 server sends parts with 200 instead of 206.
        """
        located = self._located
        part = f"bytes {start}-{end - 1}/{located.size_bytes}"
        is_part = response.headers.get("Content-Range") == part
        if response.status == OK and not is_part and start == self._start:
            raise NoRanges
        if response.status not in {OK, PARTIAL} or not is_part:
            raise RetryLater(f"{located.label} responded with {response.status}")
