"""Answers that are given again from memory: to whom, what ends it, and what is told of it."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.model import Copies, Region
from archiver.ports.index import Resolved
from archiver.telemetry import METRICS
from archiver.web.answers import TARGET_MAX_BYTES
from archiver.web.clients import Clients
from tests.web import client as web_client
from tests.web.client import SITE, Client, client
from tests.world import ASH, World

DEFAULT = f"/archiver/hgmo/{ASH}/default"


@pytest.fixture
def warm(web: Client) -> Client:
    """A client for whom both addresses of an archive were answered with hits, twice."""
    web.get(DEFAULT)
    web.work()
    for target in (DEFAULT, full(web)) * 2:
        assert web.get(target).status == 302
    return web


def full(web: Client) -> str:
    return f"/archiver/hgmo/{ASH}/{web.world.node}"


def test_a_hit_that_was_given_twice_is_given_again_without_a_question(warm: Client) -> None:
    first = warm.get(full(warm))
    _cut_off(warm.world)
    again = warm.get(full(warm))

    assert again.status == 302
    assert dict(again.headers) == {
        **first.headers,
        "x-request-id": again.headers["x-request-id"],
    }
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


def _cut_off(world: World) -> None:
    """Have nobody know anything any longer, and nobody say so."""
    world.storage.manifests = {region: {} for region in world.storage.regions}
    world.index._copies.clear()  # noqa: SLF001 - unlike ``forget``, it is no news
    world.engine.down = True


def test_what_the_lane_answers_is_what_the_application_would(world_without_lane: Client) -> None:
    slow = world_without_lane
    slow.get(DEFAULT)
    slow.work()
    answers = [slow.get(DEFAULT) for _ in range(4)]
    with client(slow.world) as quick:
        lane = [quick.get(DEFAULT) for _ in range(4)]

    names = [sorted(answer.headers) for answer in (*answers, *lane)]
    assert names == [names[0]] * 8


@pytest.fixture
def world_without_lane() -> Iterator[Client]:
    with client(World(), site=replace(SITE, hit_ttl=timedelta(0))) as speaking:
        yield speaking


def test_without_a_lane_every_hit_is_looked_up(world_without_lane: Client) -> None:
    web = world_without_lane
    web.get(DEFAULT)
    web.work()
    assert [web.get(full(web)).status for _ in range(3)] == [302] * 3
    _cut_off(web.world)
    assert web.get(full(web)).status == 503


def test_a_long_tail_is_not_kept(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    assert web.get(full(web)).status == 302
    _cut_off(web.world)
    assert web.get(full(web)).status == 503


def test_the_client_names_the_request_in_the_lane_too(warm: Client) -> None:
    assert warm.get(full(warm), x_request_id="abc").headers["x-request-id"] == "abc"
    assert warm.get(full(warm), x_request_id="a b").headers["x-request-id"] != "a b"


def test_an_answer_that_is_made_again_shares_no_rev_if_its_request_did_not() -> None:
    with client(World(), site=replace(SITE, hit_ttl=timedelta(seconds=0.5))) as web:
        web.get(full(web))
        web.work()
        assert [web.head(DEFAULT).status for _ in range(2)] == [302] * 2
        web.world.index._nodes.clear()  # noqa: SLF001 - so that the host is asked again
        web.run(asyncio.sleep(0.6))
        web.head(DEFAULT)  # has it made again
        while web.world.source.asked["resolve"] < 2:
            web.run(asyncio.sleep(0))

    assert not web.world.index.shared


def test_another_spelling_is_another_answer(warm: Client) -> None:
    _cut_off(warm.world)
    assert warm.get(f"{full(warm)}?suffix=tar.gz").status == 503
    assert warm.head(full(warm)).status == 404


def test_each_region_has_answers_of_its_own() -> None:
    places = [("192.0.2.0/24", Region("us-west-2")), ("198.51.100.0/24", Region("us-east-1"))]
    proxied = Clients(networks=places, trusted_proxies=["10.0.0.0/8"])
    with client(World(), site=replace(SITE, clients=proxied)) as web:
        web.get(DEFAULT)
        web.work()
        web.peer = "10.0.0.1"
        clients = {"192.0.2.7": "us-west-2", "198.51.100.7": "us-east-1"}
        for address in [*clients] * 2:
            web.get(full(web), x_forwarded_for=address)
        _cut_off(web.world)
        for address, region in clients.items():
            answer = web.get(full(web), x_forwarded_for=address)
            assert (answer.status, answer.headers["archiver-region"]) == (302, region)
        assert web.get(full(web), x_forwarded_for="203.0.113.1").status == 503


def test_an_answer_is_made_anew_for_the_region_that_it_was_made_for() -> None:
    clients = Clients(networks=[("192.0.2.0/24", Region("us-west-2"))])
    site = replace(SITE, clients=clients, hit_ttl=timedelta(seconds=0.5))

    with client(World(), site=site) as web:
        web.get(DEFAULT)
        web.work()
        asked = [web.get(full(web)) for _ in range(2)]
        web.run(asyncio.sleep(0.6))
        asked.append(web.get(full(web)))  # has it made anew
        web.run(asyncio.sleep(0))
        _cut_off(web.world)
        web.run(asyncio.sleep(0.5))  # by now the first one is too old
        asked.append(web.get(full(web)))

    assert [answer.status for answer in asked] == [302] * 4
    assert {answer.headers["archiver-region"] for answer in asked} == {"us-west-2"}


def test_head_is_kept_with_a_link_of_its_own(warm: Client) -> None:
    heads = [warm.head(full(warm)) for _ in range(3)]
    _cut_off(warm.world)

    assert warm.head(full(warm)).headers["location"] == heads[1].headers["location"]
    assert warm.get(full(warm)).headers["location"] != heads[1].headers["location"]


def test_an_archive_that_is_gone_is_out_of_the_lane_at_once(warm: Client) -> None:
    world = warm.world
    world.storage.manifests = {region: {} for region in world.storage.regions}
    warm.run(world.index.forget(world.archive()))

    assert warm.get(full(warm)).status == 202
    assert warm.get(DEFAULT).status == 202


def test_a_lost_copy_moves_the_lane_to_another_region_at_once(warm: Client) -> None:
    world, archive = warm.world, warm.world.archive()
    assert warm.get(full(warm)).headers["archiver-region"] == "us-east-1"
    known = warm.run(world.index.copies(archive))
    assert known
    left = Copies(manifest=known.manifest, regions=(Region("us-west-2"),))
    warm.run(world.index.record(archive, left))

    assert warm.get(full(warm)).headers["archiver-region"] == "us-west-2"


def test_a_branch_that_moved_is_out_of_the_lane_at_once(warm: Client) -> None:
    world, before = warm.world, warm.get(DEFAULT).headers["archiver-node"]
    moved = Resolved(node=world.source.commit(ASH, {"b": b"b"}, "default"), at=datetime.now(UTC))
    warm.run(world.index.remember("hgmo", ASH, "default", moved))

    assert warm.get(DEFAULT).headers["archiver-node"] == moved.node != before


def test_after_a_gap_in_the_feed_nothing_is_believed(warm: Client) -> None:
    _cut_off(warm.world)
    warm.world.notifications.publish_all()
    assert warm.get(full(warm)).status == 503


def test_hits_are_told_of_in_one_line_and_counted_one_by_one() -> None:
    count = METRICS.requests.labels(source="hgmo", outcome="hit")
    before = count._value.get()  # noqa: SLF001 - there is no other way to read it
    with capture_logs() as lines, client(World()) as web:
        web.get(DEFAULT)
        web.work()
        for _ in range(5):
            assert web.get(DEFAULT).status == 302

    told = [line for line in lines if line["event"].endswith(".finished")]
    assert [(line["event"], line["outcome"]) for line in told] == [
        ("request.finished", "miss"),
        ("requests.finished", "hit"),
    ]
    assert told[1]["requests"] == 5
    assert count._value.get() - before == 5  # noqa: SLF001


def test_hits_may_have_lines_of_their_own() -> None:
    with client(World(), site=replace(SITE, hits_told_every=timedelta(0))) as web:
        web.get(DEFAULT)
        web.work()
        with capture_logs() as lines:
            for _ in range(4):
                web.get(DEFAULT)
    told = [line for line in lines if line["event"] == "request.finished"]
    assert [(line["outcome"], line["path"]) for line in told] == [("hit", DEFAULT)] * 4


def test_memory_is_bounded_in_bytes_too(warm: Client) -> None:
    """Empty pairs are legal: any number of them is another request for the same."""
    tracemalloc.start()
    for number in range(40):
        for _ in range(2):
            assert warm.get(f"{DEFAULT}?{'&' * (8000 - number)}").status == 302
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 40 * 1500


def test_a_crowd_with_a_long_address_is_answered_one_by_one(warm: Client) -> None:
    answers = warm.run(_crowd(warm, f"{DEFAULT}?{'&' * TARGET_MAX_BYTES}", 5))
    assert {answer.status for answer in answers} == {302}


async def _crowd(web: Client, target: str, size: int, **headers: str) -> list[web_client.Answer]:
    asked = [web.asking(target, headers=headers) for _ in range(size)]
    return list(await asyncio.gather(*asked))


def test_a_crowd_that_misses_is_one_look_and_told_that_it_joined(web: Client) -> None:
    answers = web.run(_crowd(web, DEFAULT, 50))

    assert {answer.status for answer in answers} == {202}
    assert {answer.headers["location"] for answer in answers} == {answers[0].headers["location"]}
    caches = Counter(answer.headers["archiver-cache"] for answer in answers)
    assert caches == {"miss": 1, "joined": 49}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50
    assert {answer.body for answer in answers} == {b'{"result":{}}'}
    assert web.world.source.asked["resolve"] == 1


def test_a_crowd_that_misses_does_not_come_back_as_one() -> None:
    with client(World(), site=replace(SITE, retry_after_s=30)) as web:
        answers = web.run(_crowd(web, DEFAULT, 500))

    delays = Counter(answer.headers["retry-after"] for answer in answers)
    assert {int(delay) for delay in delays} <= set(range(24, 37))
    assert max(delays.values()) < 100
    assert {len(answer.headers.getlist("retry-after")) for answer in answers} == {1}


def test_a_crowd_is_not_told_of_a_task_that_has_ended(web: Client) -> None:
    web.run(_crowd(web, DEFAULT, 5))
    web.work()
    assert web.get(DEFAULT).status == 302


def test_who_prefers_to_wait_is_not_given_the_202_of_others(web: Client) -> None:
    web.run(_crowd(web, DEFAULT, 5))
    assert web.get(DEFAULT, prefer="wait=0").status == 503
    assert web.get(DEFAULT).status == 202


def test_who_waits_for_a_file_is_not_given_the_202_of_who_does_not() -> None:
    site = replace(SITE, holding=replace(SITE.holding, hold_s=0.05))
    file = f"/get/hgmo/{ASH}/default.tar.gz"
    with client(World(), site=site) as web:
        taken = web.run(_crowd(web, file, 5, prefer="respond-async"))
        assert {answer.status for answer in taken} == {202}
        assert web.get(file).status == 302


def test_a_crowd_that_waits_does_not_wait_for_the_first_of_it_to_have_waited() -> None:
    async def play(web: Client) -> float:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(web.asking(f"{DEFAULT}?wait=9"))
                for _ in range(50):
                    await asyncio.sleep(0)
            waiters: float = METRICS.waiters._value.get()  # noqa: SLF001
            web.state["waiting"].close()
        return waiters

    with client(World()) as web:
        assert web.run(play(web)) == 2


def test_a_crowd_whose_first_fails_is_answered_one_by_one(web: Client) -> None:
    web.world.engine.down = True
    answers = web.run(_crowd(web, DEFAULT, 20))
    assert {(answer.status, answer.code) for answer in answers} == {(503, "engine_unavailable")}


def test_a_hit_of_a_crowd_is_kept_at_once(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    answers = web.run(_crowd(web, full(web), 5))
    _cut_off(web.world)
    assert {answer.status for answer in answers} == {302}
    assert web.get(full(web)).status == 302


@pytest.mark.parametrize("target", ("/sha256/a/b", "/archiver/", "/get/", "/sha256/"))
def test_what_looks_like_an_archive_is_misdirected_as_all_else_is(web: Client, target: str) -> None:
    assert web.get(target).code in {"no_such_route", "invalid_request"}
    posted = web.ask("POST", target)
    assert posted.code in {"no_such_route", "method_not_allowed"}
