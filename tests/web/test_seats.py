"""How many may wait, and where who finds no seat is sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from archiver.model import ServedFormats
from archiver.testing import FakeSource
from archiver.web.seats import Holding
from tests.web.client import SITE, Answer, client
from tests.web.waiters import DEFAULT, PATIENT, built, settled
from tests.world import World


def test_one_client_may_not_take_all_the_seats_and_all_together_not_more() -> None:
    site = replace(SITE, holding=Holding(waiters=6, waiters_per_client=4))
    with client(World(), site=site) as web:

        async def play() -> list[Answer]:
            async with asyncio.TaskGroup() as group:
                asking = [
                    group.create_task(web.asking(PATIENT, client=address))
                    for address in ("192.0.2.1",) * 5 + ("192.0.2.2",) * 3
                ]
                await settled()
                await built(web)
            return [task.result() for task in asking]

        answers = web.run(play())
    assert [answer.status for answer in answers] == [302] * 4 + [503] + [302] * 2 + [503]
    for answer in answers:
        if answer.status == 503:
            assert answer.code == "too_many_waiters"
            assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("addresses", "statuses"),
    (
        (("2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"), [302, 302, 503]),
        (("2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"), [302, 302, 302]),
        (("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3"), [302, 302, 302]),
    ),
)
def test_one_client_is_one_although_it_has_a_network_of_ipv6(
    addresses: Sequence[str], statuses: list[int]
) -> None:
    with client(World(), site=replace(SITE, holding=Holding(waiters_per_client=2))) as web:

        async def play() -> list[int]:
            async with asyncio.TaskGroup() as group:
                asking = [
                    group.create_task(web.asking(PATIENT, client=address)) for address in addresses
                ]
                await settled()
                await built(web)
            return [task.result().status for task in asking]

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
def test_who_finds_no_seat_goes_wherever_it_would_go_after_the_wait(
    query: str, prefer: str, status: int, outcome: str
) -> None:
    full = replace(SITE, holding=Holding(waiters=0))
    source = FakeSource(served=ServedFormats(suffixes=("tar.gz",)))
    with capture_logs() as lines, client(World(source=source), site=full) as web:
        answer = web.get(f"{DEFAULT}{query}", prefer=prefer)
    (line,) = (line for line in lines if line["event"] == "request.finished")
    assert (answer.status, line["outcome"]) == (status, outcome)
    assert ("retry-after" in answer.headers) == (status != 302)
