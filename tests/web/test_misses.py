"""``on_miss``, and what else a miss is answered with, in a world of fakes."""

import asyncio

import pytest

from archiver.model import ServedFormats
from archiver.resolver import LOOKUPS_PER_CLIENT_MAX
from archiver.testing import FakeSource
from tests.web.client import PUBLIC_URL, Answer, Client, client
from tests.web.waiters import DEFAULT
from tests.world import ASH, World


@pytest.mark.parametrize("query", ("wait=80", "wait=0", "on_miss=redirect", "on_miss=none"))
def test_head_of_a_miss_is_a_404_whatever_it_says(web: Client, query: str) -> None:
    answer = web.head(f"{DEFAULT}?{query}", prefer="wait=80")
    assert (answer.status, answer.code) == (404, "absent")
    assert not web.world.engine.tasks


def test_on_miss_none_brings_nothing_about_and_waits_for_nothing(web: Client) -> None:
    answer = web.get(f"{DEFAULT}?on_miss=none&wait=80")
    assert (answer.status, answer.code) == (404, "absent")
    assert not web.world.engine.tasks


def test_only_a_request_that_creates_something_stores_what_its_rev_means(web: Client) -> None:
    web.head(DEFAULT)
    web.get(f"{DEFAULT}?on_miss=none")
    assert not web.world.index.shared
    web.get(f"/archiver/hgmo/{ASH}/V_1")
    assert web.world.index.shared == {("hgmo", ASH, "V_1")}


def test_a_client_with_many_unknown_revs_leaves_room_for_others(web: Client) -> None:
    async def play() -> list[Answer]:
        revs = [f"r{number}" for number in range(LOOKUPS_PER_CLIENT_MAX + 1)]
        asking = [web.asking(f"/archiver/hgmo/{ASH}/{rev}", client="192.0.2.1") for rev in revs]
        return await asyncio.gather(*asking, web.asking(DEFAULT, client="192.0.2.2"))

    *unknown, refused, other = web.run(play())
    assert {answer.code for answer in unknown} == {"unknown_rev"}
    assert (refused.status, refused.code) == (503, "too_many_waiters")
    assert int(refused.headers["retry-after"]) >= 1
    assert other.status == 202


def test_on_miss_redirect_leads_to_the_host_while_the_task_runs(web: Client) -> None:
    target = f"{DEFAULT}?on_miss=redirect"
    answer = web.get(target)
    assert answer.status == 302
    assert answer.headers["location"] == web.world.source.url(web.world.archive())
    assert "archiver-sha256" not in answer.headers
    assert len(web.world.engine.tasks) == 1
    web.work()
    assert web.get(target).headers["archiver-cache"] == "hit"


def test_on_miss_redirect_waits_first_if_it_is_told_to(hasty: Client) -> None:
    target, hops = f"{DEFAULT}?on_miss=redirect&wait=80", 0
    while (answer := hasty.get(target)).headers["location"].startswith(PUBLIC_URL):
        target = answer.headers["location"].removeprefix(PUBLIC_URL)
        hops += 1
    assert hops == 8
    assert answer.headers["location"] == hasty.world.source.url(hasty.world.archive())


@pytest.mark.parametrize("query", ("suffix=tar.gz", "suffix=zip&subdir=testing"))
def test_on_miss_redirect_never_leads_to_anything_but_what_was_asked_for(query: str) -> None:
    source = FakeSource(served=ServedFormats(suffixes=("zip",), subdirs=False))
    with client(World(source=source)) as web:
        answer = web.get(f"{DEFAULT}?on_miss=redirect&{query}")
        assert (answer.status, answer.code) == (503, "not_ready_yet")
        assert len(web.world.engine.tasks) == 1
