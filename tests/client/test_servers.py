"""Several servers: which one is asked first, and how long."""

import threading
from collections.abc import Iterator

import pytest

from archiver.client.servers import Servers, open_servers

URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.fixture
def servers() -> Iterator[Servers]:
    with open_servers(URLS) as servers:
        yield servers


def test_a_server_that_responded_comes_first(servers: Servers) -> None:
    first, second = servers
    servers.prefer(second)
    assert [*servers] == [second, first]
    assert servers.first is second


def test_threads_share_the_order(servers: Servers) -> None:
    def prefer_all() -> None:
        for _ in range(2000):
            for client in servers:
                servers.prefer(client)

    threads = [threading.Thread(target=prefer_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*servers}) == len(servers) == 2
