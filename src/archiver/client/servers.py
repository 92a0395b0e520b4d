"""The servers of Archiver that a client may ask, and which of them comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from archiver.client.api_client import RESPONSE_S, ApiClient, open_client

PATIENCE_S = 20.0
"""The time for a response if another server may respond. Archiver holds a request for 8 s."""


class Servers:
    """Servers in order of preference. Threads share them.

    One that responded comes first from then on, so that a silent one costs its time once.
    """

    def __init__(self, clients: Sequence[ApiClient]) -> None:
        self._clients = [*clients]
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[ApiClient]:
        with self._lock:
            return iter([*self._clients])

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def first(self) -> ApiClient:
        return next(iter(self))

    def prefer(self, client: ApiClient) -> None:
        with self._lock:
            self._clients.remove(client)
            self._clients.insert(0, client)


@contextmanager
def open_servers(urls: Sequence[str]) -> Iterator[Servers]:
    """Yield the servers at *urls*. Raises InvalidUsage as ``open_client``."""
    response_s = PATIENCE_S if len(urls) > 1 else RESPONSE_S
    with ExitStack() as stack:
        yield Servers(
            [stack.enter_context(open_client(url, response_s=response_s)) for url in urls]
        )
