"""The limits of clients, and the replies to refused requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.limiter import ClientLimits
from archiver.tasks import LIGHT_MAX
from archiver.telemetry import METRICS
from tests.memory_world import ASH, World
from tests.web.client import DEFAULT, Client, client

TOKENS = {name: create_token() for name in ("one", "root")}
POLICY = Policy(
    sources={"hgmo": SourcePolicy()},
    grants={"one": Grant(scope=Scope.CREATE), "root": Grant(scope=Scope.ADMIN)},
    names={hash_token(token): name for name, token in TOKENS.items()},
)


@contextmanager
def limited(limits: ClientLimits) -> Iterator[Client]:
    with client(World(limits=limits), access=Access(POLICY)) as web:
        yield web


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def target(number: int) -> str:
    """Return the address of one of many archives, whose subdirs need not exist."""
    return f"{DEFAULT}?subdir=dir{number}"


def test_a_client_with_too_many_open_tasks_is_429() -> None:
    with limited(ClientLimits(open_tasks=2)) as web:
        statuses = [web.get(target(number)).status for number in range(2)]
        refused = web.get(target(2))
        web.work()
        after = web.get(target(2)).status
    assert statuses == [202, 202]
    assert (refused.status, refused.code) == (429, "too_many_tasks")
    assert refused.headers["ratelimit-policy"] == '"open-tasks";q=2'
    assert refused.headers["ratelimit"] == '"open-tasks";r=0;t=5'
    assert refused.headers["retry-after"] == "5"
    assert after == 202


@pytest.mark.parametrize(
    ("limits", "code", "policy"),
    (
        (ClientLimits(tasks_per_minute=1), "too_many_new_tasks", '"tasks";q=1;w=60'),
        (ClientLimits(lookups_per_minute=1), "too_many_lookups", '"lookups";q=1;w=60'),
    ),
)
def test_a_limit_per_minute_says_when_it_ends(limits: ClientLimits, code: str, policy: str) -> None:
    with limited(limits) as web:
        assert web.get(target(0)).status == 202
        last = f"/archiver/hgmo/{ASH}/V_1?subdir=dir1"
        refused = web.get(last)
    assert (refused.status, refused.code) == (429, code)
    assert refused.headers["ratelimit-policy"] == policy
    seconds = int(refused.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert refused.headers["ratelimit"] == f"{policy.partition(';')[0]};r=0;t={seconds}"


def test_a_full_queue_is_503_without_the_headers_of_a_client_limit() -> None:
    with limited(ClientLimits(queue_max={"hgmo": 2})) as web:
        for number in range(2):
            web.peer = f"192.0.2.{number}"
            assert web.get(target(number)).status == 202
        web.peer = "192.0.2.9"
        refused = web.get(target(2))
        joined = web.get(target(0)).status
    assert (refused.status, refused.code, joined) == (503, "queue_full", 202)
    assert refused.headers["retry-after"] == "30"
    assert "ratelimit" not in refused.headers


def test_a_full_engine_is_503_with_a_delay_and_serves_what_it_has(web: Client) -> None:
    assert web.get(DEFAULT).status == 202
    assert web.get(target(1)).status == 202
    web.work()
    assert web.get(target(2)).status == 202
    web.world.engine.full = True
    refused = web.get(target(3))
    assert (refused.status, refused.code) == (503, "engine_full")
    assert refused.headers["retry-after"] == "30"
    assert "ratelimit" not in refused.headers
    assert [web.get(DEFAULT).status, web.get(target(2)).status] == [302, 202]


def test_hits_and_joined_tasks_are_free() -> None:
    with limited(ClientLimits(open_tasks=1, tasks_per_minute=1, lookups_per_minute=1)) as web:
        assert web.get(DEFAULT).status == 202
        assert [web.get(f"{DEFAULT}?wait=0").status for _ in range(5)] == [503] * 5
        web.work()
        assert [web.get(DEFAULT).status for _ in range(5)] == [302] * 5
        assert web.get(target(1)).code == "too_many_new_tasks"


def test_a_crowd_that_requests_one_archive_is_not_limited() -> None:
    async def play(web: Client) -> list[int]:
        requests = [
            web.request_async(DEFAULT, client=f"192.0.2.{number % 9}") for number in range(300)
        ]
        return [response.status for response in await asyncio.gather(*requests)]

    limits = ClientLimits(open_tasks=1, tasks_per_minute=1, lookups_per_minute=2)
    with limited(limits) as web:
        assert set(web.run(play(web))) == {202}


def test_a_flooder_that_polls_keeps_no_client_from_the_queue() -> None:
    """A 202 is remembered for a second, but not while the task waits for the flooder's turn."""
    with limited(ClientLimits(open_tasks=100)) as web:
        for number in range(20):
            assert web.get(target(number)).status == 202
        polled = [web.get(target(19)).headers["archiver-cache"] for _ in range(3)]
        assert polled == ["joined"] * 3
        web.peer = "192.0.2.2"
        assert web.get(target(19)).headers["archiver-cache"] == "joined"
        claimed = [web.world.engine.claim() for _ in range(LIGHT_MAX + 1)]
    assert "dir19" in {attempt.archive.subdir for attempt in claimed if attempt}


def test_a_principal_has_one_share_at_all_its_addresses_and_no_share_of_others() -> None:
    with limited(ClientLimits(open_tasks=1)) as web:
        web.peer = "192.0.2.1"
        assert web.get(target(0), **bearer("one")).status == 202
        assert web.get(target(1)).status == 202
        assert web.get(target(2)).status == 429
        web.peer = "192.0.2.2"
        assert web.get(target(3), **bearer("one")).status == 429
        assert web.get(target(3)).status == 202


def test_an_ipv6_network_is_one_client() -> None:
    with limited(ClientLimits(open_tasks=1)) as web:
        web.peer = "2001:db8::1"
        assert web.get(target(0)).status == 202
        web.peer = "2001:db8::2:3"
        assert web.get(target(1)).status == 429


def test_clients_without_a_known_address_are_limited_together() -> None:
    with limited(ClientLimits(open_tasks=1)) as web:
        web.peer = None
        assert [web.get(target(number)).status for number in range(2)] == [202, 429]


def test_an_administrator_is_not_limited() -> None:
    limits = ClientLimits(open_tasks=1, tasks_per_minute=1, lookups_per_minute=1)
    with limited(limits) as web:
        statuses = {web.get(target(number), **bearer("root")).status for number in range(9)}
    assert statuses == {202}


def test_a_head_request_counts_its_lookups() -> None:
    with limited(ClientLimits(lookups_per_minute=1)) as web:
        revs = ("unknown1", "unknown2")
        assert [web.head(f"/archiver/hgmo/{ASH}/{rev}").status for rev in revs] == [404, 429]


def test_refusals_are_counted_by_code() -> None:
    counter = METRICS.refusals.labels(code="too_many_tasks")
    before = counter._value.get()  # noqa: SLF001
    with limited(ClientLimits(open_tasks=1)) as web:
        for number in range(3):
            web.get(target(number))
    assert counter._value.get() - before == 2  # noqa: SLF001
