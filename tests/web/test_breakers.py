"""Breakers as clients see them: in the heartbeat, and by the regions of redirects."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.breaker import Breaker, BreakerName
from archiver.model import Region
from tests.memory_world import World
from tests.web.client import DEFAULT, Client, client

EAST, WEST = Region("us-east-1"), Region("us-west-2")
PREFERRED = f"{DEFAULT}?preferred_region={WEST}"
OPEN = Breaker(failures=10, code="source_timeout", until=datetime.now(UTC) + timedelta(minutes=9))


@pytest.fixture
def mixed() -> Iterator[Client]:
    """An application with a private source, and breakers of it and of others that are open."""
    policy = Policy(sources={"hgmo": SourcePolicy(), "vault": SourcePolicy(private=True)})
    world = World()
    names = (("source", "hgmo"), ("source", "vault"), ("source", "removed"), ("region", WEST))
    world.not_closed |= {BreakerName(*name): OPEN for name in names}  # type: ignore[arg-type]
    with client(world, access=Access(policy)) as web:
        yield web


def test_the_heartbeat_warns_of_breakers_but_names_no_private_source(mixed: Client) -> None:
    response = mixed.get("/__heartbeat__")
    assert (response.status, response.json["status"]) == (200, "warning")
    parts = {part for part in response.json["checks"] if part.startswith("breaker.")}
    assert parts == {"breaker.source.hgmo", f"breaker.region.{WEST}"}
    assert "vault" not in response.body.decode()
    assert response.json["details"]["breaker.source.hgmo"]["level"] == 30


def test_a_source_that_becomes_private_leaves_the_heartbeat(mixed: Client) -> None:
    private = SourcePolicy(private=True)
    access = mixed.state.access
    access.replace(replace(access.policy, sources=dict.fromkeys(("hgmo", "vault"), private)))
    assert "hgmo" not in mixed.get("/__heartbeat__").body.decode()


def test_breakers_are_shown_as_they_are_now(mixed: Client) -> None:
    mixed.get("/__heartbeat__")
    mixed.world.not_closed.clear()
    assert mixed.get("/__heartbeat__").json["status"] == "ok"


def test_redirects_avoid_a_region_whose_breaker_is_open(web: Client) -> None:
    web.get(PREFERRED)
    web.work()
    web.world.avoided.add(WEST)
    response = web.get(PREFERRED)
    assert response.headers["archiver-region"] == EAST
    assert response.headers["archiver-region-fallback"] == WEST
    web.world.avoided.add(EAST)
    web.world.notifications.changes.notify(None)
    assert web.get(PREFERRED).headers["archiver-region"] == WEST


def test_remembered_redirects_are_forgotten_when_a_breaker_changes(web: Client) -> None:
    web.get(PREFERRED)
    web.work()
    regions = [web.get(PREFERRED).headers["archiver-region"] for _ in range(3)]
    web.world.avoided.add(WEST)
    web.world.notifications.changes.notify(None)
    regions.append(web.get(PREFERRED).headers["archiver-region"])
    assert regions == [WEST, WEST, WEST, EAST]
