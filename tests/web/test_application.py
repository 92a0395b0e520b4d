"""Responses repeated from memory: to which clients, until when, and how they are logged."""

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
from archiver.web.client_address import ClientResolver
from archiver.web.response_cache import TARGET_MAX_BYTES
from tests.memory_world import ASH, World
from tests.web import client as web_client
from tests.web.client import CONFIG, DEFAULT, Client, client


@pytest.fixture
def warm(web: Client) -> Client:
    """A client that has requested both addresses of an archive twice, and got hits."""
    web.get(DEFAULT)
    web.work()
    for target in (DEFAULT, full(web)) * 2:
        assert web.get(target).status == 302
    return web


def full(web: Client) -> str:
    return f"/archiver/hgmo/{ASH}/{web.world.node}"


def test_a_hit_is_repeated_from_memory_after_its_second_request(warm: Client) -> None:
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
    """Empty the buckets and the index and stop the engine, without a notification."""
    world.storage.manifests = {region: {} for region in world.storage.regions}
    world.index._copies.clear()  # noqa: SLF001 - unlike ``forget``, it is no news
    world.engine.down = True


def test_a_repeated_hit_has_the_headers_of_the_original(without_cache: Client) -> None:
    slow = without_cache
    slow.get(DEFAULT)
    slow.work()
    responses = [slow.get(DEFAULT) for _ in range(4)]
    with client(slow.world) as quick:
        repeated = [quick.get(DEFAULT) for _ in range(4)]

    names = [sorted(response.headers) for response in (*responses, *repeated)]
    assert names == [names[0]] * 8


@pytest.fixture
def without_cache() -> Iterator[Client]:
    with client(World(), config=replace(CONFIG, hit_ttl=timedelta(0))) as speaking:
        yield speaking


def test_without_a_cache_every_hit_is_looked_up(without_cache: Client) -> None:
    web = without_cache
    web.get(DEFAULT)
    web.work()
    assert [web.get(full(web)).status for _ in range(3)] == [302] * 3
    _cut_off(web.world)
    assert web.get(full(web)).status == 503


def test_a_hit_that_was_requested_once_is_not_remembered(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    assert web.get(full(web)).status == 302
    _cut_off(web.world)
    assert web.get(full(web)).status == 503


def test_a_repeated_hit_has_the_request_id_of_its_client(warm: Client) -> None:
    assert warm.get(full(warm), x_request_id="abc").headers["x-request-id"] == "abc"
    assert warm.get(full(warm), x_request_id="a b").headers["x-request-id"] != "a b"


def test_a_renewal_shares_no_rev_if_its_request_did_not() -> None:
    with client(World(), config=replace(CONFIG, hit_ttl=timedelta(seconds=0.5))) as web:
        web.get(full(web))
        web.work()
        assert [web.head(DEFAULT).status for _ in range(2)] == [302] * 2
        web.world.index._nodes.clear()  # noqa: SLF001 - so that the host is asked again
        web.run(asyncio.sleep(0.6))
        web.head(DEFAULT)  # triggers the renewal
        while web.world.source.asked["resolve"] < 2:
            web.run(asyncio.sleep(0))

    assert not web.world.index.shared


def test_another_spelling_is_looked_up_by_itself(warm: Client) -> None:
    _cut_off(warm.world)
    assert warm.get(f"{full(warm)}?suffix=tar.gz").status == 503
    assert warm.head(full(warm)).status == 404


def test_clients_near_different_regions_share_no_response() -> None:
    places = [("192.0.2.0/24", Region("us-west-2")), ("198.51.100.0/24", Region("us-east-1"))]
    proxied = ClientResolver(networks=places, trusted_proxies=["10.0.0.0/8"])
    with client(World(), config=replace(CONFIG, clients=proxied)) as web:
        web.get(DEFAULT)
        web.work()
        web.peer = "10.0.0.1"
        clients = {"192.0.2.7": "us-west-2", "198.51.100.7": "us-east-1"}
        for address in [*clients] * 2:
            web.get(full(web), x_forwarded_for=address)
        _cut_off(web.world)
        for address, region in clients.items():
            response = web.get(full(web), x_forwarded_for=address)
            assert (response.status, response.headers["archiver-region"]) == (302, region)
        assert web.get(full(web), x_forwarded_for="203.0.113.1").status == 503


def test_a_renewal_keeps_the_region_of_the_response() -> None:
    clients = ClientResolver(networks=[("192.0.2.0/24", Region("us-west-2"))])
    config = replace(CONFIG, clients=clients, hit_ttl=timedelta(seconds=0.5))

    with client(World(), config=config) as web:
        web.get(DEFAULT)
        web.work()
        responses = [web.get(full(web)) for _ in range(2)]
        web.run(asyncio.sleep(0.6))
        responses.append(web.get(full(web)))  # triggers the renewal
        web.run(asyncio.sleep(0))
        _cut_off(web.world)
        web.run(asyncio.sleep(0.5))  # the first response has expired
        responses.append(web.get(full(web)))

    assert [response.status for response in responses] == [302] * 4
    assert {response.headers["archiver-region"] for response in responses} == {"us-west-2"}


def test_head_is_remembered_with_its_own_url(warm: Client) -> None:
    heads = [warm.head(full(warm)) for _ in range(3)]
    _cut_off(warm.world)

    assert warm.head(full(warm)).headers["location"] == heads[1].headers["location"]
    assert warm.get(full(warm)).headers["location"] != heads[1].headers["location"]


def test_a_deleted_archive_is_forgotten_at_once(warm: Client) -> None:
    world = warm.world
    world.storage.manifests = {region: {} for region in world.storage.regions}
    warm.run(world.index.forget(world.archive()))

    assert warm.get(full(warm)).status == 202
    assert warm.get(DEFAULT).status == 202


def test_a_lost_copy_redirects_to_another_region_at_once(warm: Client) -> None:
    world, archive = warm.world, warm.world.archive()
    assert warm.get(full(warm)).headers["archiver-region"] == "us-east-1"
    known = warm.run(world.index.copies(archive))
    assert known
    left = Copies(manifest=known.manifest, regions=(Region("us-west-2"),))
    warm.run(world.index.record(archive, left))

    assert warm.get(full(warm)).headers["archiver-region"] == "us-west-2"


def test_a_branch_that_moved_is_looked_up_at_once(warm: Client) -> None:
    world, before = warm.world, warm.get(DEFAULT).headers["archiver-node"]
    moved = Resolved(node=world.source.commit(ASH, {"b": b"b"}, "default"), at=datetime.now(UTC))
    warm.run(world.index.remember("hgmo", ASH, "default", moved))

    assert warm.get(DEFAULT).headers["archiver-node"] == moved.node != before


def test_after_a_gap_in_the_feed_nothing_is_repeated(warm: Client) -> None:
    _cut_off(warm.world)
    warm.world.notifications.publish_all()
    assert warm.get(full(warm)).status == 503


def test_hits_are_logged_in_one_line_and_counted_one_by_one() -> None:
    count = METRICS.requests.labels(source="hgmo", outcome="hit")
    before = count._value.get()  # noqa: SLF001 - there is no other way to read it
    with capture_logs() as lines, client(World()) as web:
        web.get(DEFAULT)
        web.work()
        for _ in range(5):
            assert web.get(DEFAULT).status == 302

    finished = [line for line in lines if line["event"].endswith(".finished")]
    assert [(line["event"], line["outcome"]) for line in finished] == [
        ("request.finished", "miss"),
        ("requests.finished", "hit"),
    ]
    assert finished[1]["requests"] == 5
    assert count._value.get() - before == 5  # noqa: SLF001


def test_hits_may_have_lines_of_their_own() -> None:
    with client(World(), config=replace(CONFIG, hits_log_interval=timedelta(0))) as web:
        web.get(DEFAULT)
        web.work()
        with capture_logs() as lines:
            for _ in range(4):
                web.get(DEFAULT)
    finished = [line for line in lines if line["event"] == "request.finished"]
    assert [(line["outcome"], line["path"]) for line in finished] == [("hit", DEFAULT)] * 4


def test_long_targets_are_not_remembered(warm: Client) -> None:
    """Empty pairs are legal, and each number of them is another target."""
    tracemalloc.start()
    for number in range(40):
        for _ in range(2):
            assert warm.get(f"{DEFAULT}?{'&' * (8000 - number)}").status == 302
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 40 * 1500


def test_a_crowd_with_a_long_address_is_answered_one_by_one(warm: Client) -> None:
    responses = warm.run(_crowd(warm, f"{DEFAULT}?{'&' * TARGET_MAX_BYTES}", 5))
    assert {response.status for response in responses} == {302}


async def _crowd(
    web: Client, target: str, size: int, **headers: str
) -> list[web_client.ClientResponse]:
    responses = [web.request_async(target, headers=headers) for _ in range(size)]
    return list(await asyncio.gather(*responses))


def test_a_crowd_that_misses_is_looked_up_once_and_joins(web: Client) -> None:
    responses = web.run(_crowd(web, DEFAULT, 50))

    assert {response.status for response in responses} == {202}
    assert {response.headers["location"] for response in responses} == {
        responses[0].headers["location"]
    }
    caches = Counter(response.headers["archiver-cache"] for response in responses)
    assert caches == {"miss": 1, "joined": 49}
    assert len({response.headers["x-request-id"] for response in responses}) == 50
    assert {response.body for response in responses} == {b'{"result":{}}'}
    assert web.world.source.asked["resolve"] == 1


def test_a_crowd_that_misses_comes_back_at_different_times() -> None:
    with client(World(), config=replace(CONFIG, retry_after_s=30)) as web:
        responses = web.run(_crowd(web, DEFAULT, 500))

    delays = Counter(response.headers["retry-after"] for response in responses)
    assert {int(delay) for delay in delays} <= set(range(24, 37))
    assert max(delays.values()) < 100
    assert {len(response.headers.getlist("retry-after")) for response in responses} == {1}


def test_the_202_of_a_crowd_is_not_repeated_after_the_task(web: Client) -> None:
    web.run(_crowd(web, DEFAULT, 5))
    web.work()
    assert web.get(DEFAULT).status == 302


def test_a_client_that_prefers_to_wait_does_not_get_the_202_of_others(web: Client) -> None:
    web.run(_crowd(web, DEFAULT, 5))
    assert web.get(DEFAULT, prefer="wait=0").status == 503
    assert web.get(DEFAULT).status == 202


def test_a_client_that_waits_for_a_file_does_not_get_the_202_of_others() -> None:
    config = replace(CONFIG, wait_limits=replace(CONFIG.wait_limits, hold_s=0.05))
    file = f"/get/hgmo/{ASH}/default.tar.gz"
    with client(World(), config=config) as web:
        taken = web.run(_crowd(web, file, 5, prefer="respond-async"))
        assert {response.status for response in taken} == {202}
        assert web.get(file).status == 302


def test_a_held_request_does_not_hold_identical_ones() -> None:
    async def play(web: Client) -> float:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(web.request_async(f"{DEFAULT}?wait=9"))
                for _ in range(50):
                    await asyncio.sleep(0)
            waiters: float = METRICS.waiters._value.get()  # noqa: SLF001
            web.state.waiters.close()
        return waiters

    with client(World()) as web:
        assert web.run(play(web)) == 2


def test_a_crowd_whose_first_fails_is_answered_one_by_one(web: Client) -> None:
    web.world.engine.down = True
    responses = web.run(_crowd(web, DEFAULT, 20))
    assert {(response.status, response.code) for response in responses} == {
        (503, "engine_unavailable")
    }


def test_a_hit_of_a_crowd_is_remembered_at_once(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    responses = web.run(_crowd(web, full(web), 5))
    _cut_off(web.world)
    assert {response.status for response in responses} == {302}
    assert web.get(full(web)).status == 302


@pytest.mark.parametrize("target", ("/sha256/a/b", "/archiver/", "/get/", "/sha256/"))
def test_malformed_archive_paths_and_methods_get_the_same_problems_as_others(
    web: Client, target: str
) -> None:
    assert web.get(target).code in {"no_such_route", "invalid_request"}
    posted = web.request("POST", target)
    assert posted.code in {"no_such_route", "method_not_allowed"}
