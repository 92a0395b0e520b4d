"""Limits of waiting requests, and the replies to refused ones."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from archiver.ports.source import ServedFormats
from archiver.testing import FakeSource
from archiver.web.waiting.waiters import WaitLimits
from tests.memory_world import World
from tests.web.client import CONFIG, DEFAULT, ClientResponse, client
from tests.web.waiters import PATIENT, built, settled


def test_waiters_are_limited_per_client_and_in_all() -> None:
    config = replace(CONFIG, wait_limits=WaitLimits(waiters=6, waiters_per_client=4))
    with client(World(), config=config) as web:

        async def play() -> list[ClientResponse]:
            async with asyncio.TaskGroup() as group:
                requests = [
                    group.create_task(web.request_async(PATIENT, client=address))
                    for address in ("192.0.2.1",) * 5 + ("192.0.2.2",) * 3
                ]
                await settled()
                await built(web)
            return [task.result() for task in requests]

        responses = web.run(play())
    assert [response.status for response in responses] == [302] * 4 + [503] + [302] * 2 + [503]
    for response in responses:
        if response.status == 503:
            assert response.code == "too_many_waiters"
            assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("addresses", "statuses"),
    (
        (("2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"), [302, 302, 503]),
        (("2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"), [302, 302, 302]),
        (("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3"), [302, 302, 302]),
    ),
)
def test_an_ipv6_network_counts_as_one_client(
    addresses: Sequence[str], statuses: list[int]
) -> None:
    with client(
        World(), config=replace(CONFIG, wait_limits=WaitLimits(waiters_per_client=2))
    ) as web:

        async def play() -> list[int]:
            async with asyncio.TaskGroup() as group:
                requests = [
                    group.create_task(web.request_async(PATIENT, client=address))
                    for address in addresses
                ]
                await settled()
                await built(web)
            return [task.result().status for task in requests]

        assert web.run(play()) == statuses


@pytest.mark.parametrize(
    ("query", "prefer", "status", "outcome"),
    (
        ("?wait=5", "", 503, "too_many_waiters"),
        ("", "wait=5", 503, "too_many_waiters"),
        ("", "respond-async, wait=5", 202, "miss"),
        ("?on_miss=redirect&wait=5", "", 302, "sent_to_host"),
        ("?on_miss=redirect&wait=5&suffix=tar", "", 503, "not_ready_yet"),
    ),
)
def test_a_client_that_may_not_wait_gets_the_reply_that_follows_the_wait(
    query: str, prefer: str, status: int, outcome: str
) -> None:
    full = replace(CONFIG, wait_limits=WaitLimits(waiters=0))
    source = FakeSource(served=ServedFormats(suffixes=("tar.gz",)))
    with capture_logs() as lines, client(World(source=source), config=full) as web:
        response = web.get(f"{DEFAULT}{query}", prefer=prefer)
    (line,) = (line for line in lines if line["event"] == "request.finished")
    assert (response.status, line["outcome"]) == (status, outcome)
    assert ("retry-after" in response.headers) == (status != 302)
