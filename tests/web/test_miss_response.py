"""Responses to misses, and ``on_miss``, in a world of fakes."""

import asyncio

import pytest

from archiver.lookup_line import LookupLimits
from archiver.model import Node
from archiver.ports.source import ServedFormats
from archiver.testing import FakeSource
from tests.memory_world import ASH, World
from tests.web.client import DEFAULT, PUBLIC_URL, Client, ClientResponse, client
from tests.web.waiters import settled


@pytest.mark.parametrize("query", ("wait=80", "wait=0", "on_miss=redirect", "on_miss=none"))
def test_head_of_a_miss_is_a_404_with_any_parameters(web: Client, query: str) -> None:
    response = web.head(f"{DEFAULT}?{query}", prefer="wait=80")
    assert (response.status, response.code) == (404, "absent")
    assert not web.world.engine.tasks


def test_on_miss_none_creates_nothing_and_does_not_wait(web: Client) -> None:
    response = web.get(f"{DEFAULT}?on_miss=none&wait=80")
    assert (response.status, response.code) == (404, "absent")
    assert not web.world.engine.tasks


def test_only_a_request_that_creates_a_task_stores_its_rev(web: Client) -> None:
    web.head(DEFAULT)
    web.get(f"{DEFAULT}?on_miss=none")
    assert not web.world.index.shared
    web.get(f"/archiver/hgmo/{ASH}/V_1")
    assert web.world.index.shared == {("hgmo", ASH, "V_1")}


def test_a_client_with_many_unknown_revs_leaves_room_for_others(web: Client) -> None:
    async def play() -> list[ClientResponse]:
        revs = [f"r{number}" for number in range(LookupLimits().per_client + 1)]
        requests = [
            web.request_async(f"/archiver/hgmo/{ASH}/{rev}", client="192.0.2.1") for rev in revs
        ]
        return await asyncio.gather(*requests, web.request_async(DEFAULT, client="192.0.2.2"))

    *unknown, refused, other = web.run(play())
    assert {response.code for response in unknown} == {"unknown_rev"}
    assert (refused.status, refused.code) == (503, "too_many_waiters")
    assert int(refused.headers["retry-after"]) >= 1
    assert other.status == 202


class BusyHost(FakeSource):
    """A host that answers one lookup after the other, when ``answer`` says so.

    ``revs`` are the lookups in the order of their arrival.
    """

    def __init__(self) -> None:
        super().__init__()
        self.revs: list[str] = []
        self._answers: list[asyncio.Event] = []

    async def resolve(self, repo: str, rev: str) -> Node:
        self.revs.append(rev)
        answer = asyncio.Event()
        self._answers.append(answer)
        await answer.wait()
        return await super().resolve(repo, rev)

    @property
    def busy(self) -> bool:
        return bool(self._answers)

    async def answer(self) -> None:
        self._answers.pop(0).set()
        await settled()


@pytest.mark.parametrize("each", (12, 14))  # together 480, or more than fit
def test_a_newcomer_waits_for_one_lookup_of_each_other_client_at_most(each: int) -> None:
    host = BusyHost()
    flood = [(client, f"r{client}_{number}") for number in range(each) for client in range(40)]
    with client(World(source=host)) as web:

        async def request(rev: str, address: str) -> ClientResponse:
            return await web.request_async(
                f"/archiver/hgmo/{ASH}/{rev}?on_miss=none", client=address
            )

        async def play() -> tuple[ClientResponse, int]:
            async with asyncio.TaskGroup() as group:
                for number, rev in flood:
                    group.create_task(request(rev, f"192.0.2.{number}"))
                await settled()
                newcomer = group.create_task(request("default", "198.51.100.1"))
                await settled()
                while not newcomer.done():
                    await host.answer()
                before = host.revs.index("default")
                while host.busy:
                    await host.answer()
            return newcomer.result(), before

        response, before = web.run(play())
    assert (response.status, response.code) == (404, "absent")
    assert before <= host.lookup_concurrency + 40


def test_on_miss_redirect_leads_to_the_host_while_the_task_runs(web: Client) -> None:
    target = f"{DEFAULT}?on_miss=redirect"
    response = web.get(target)
    assert response.status == 302
    assert response.headers["location"] == web.world.source.url(web.world.archive())
    assert "archiver-sha256" not in response.headers
    assert len(web.world.engine.tasks) == 1
    web.work()
    assert web.get(target).headers["archiver-cache"] == "hit"


def test_on_miss_redirect_follows_the_wait(hasty: Client) -> None:
    target, hops = f"{DEFAULT}?on_miss=redirect&wait=80", 0
    while (response := hasty.get(target)).headers["location"].startswith(PUBLIC_URL):
        target = response.headers["location"].removeprefix(PUBLIC_URL)
        hops += 1
    assert hops == 8
    assert response.headers["location"] == hasty.world.source.url(hasty.world.archive())


@pytest.mark.parametrize("query", ("suffix=tar.gz", "suffix=zip&subdir=testing"))
def test_on_miss_redirect_leads_only_to_the_requested_format_and_subdir(query: str) -> None:
    source = FakeSource(served=ServedFormats(suffixes=("zip",), subdirs=False))
    with client(World(source=source)) as web:
        response = web.get(f"{DEFAULT}?on_miss=redirect&{query}")
        assert (response.status, response.code) == (503, "not_ready_yet")
        assert len(web.world.engine.tasks) == 1
