"""The region to which a hit of ``/archiver/…`` is redirected."""

from dataclasses import replace

import pytest

from archiver.model import Region
from archiver.testing import MemoryStorage
from archiver.web.client_address import ClientResolver
from tests.memory_world import World
from tests.web.client import CONFIG, DEFAULT, Client, client

WESTERN = f"{DEFAULT}?&preferred_region=us-west-2&suffix=tar.gz&subdir=testing/mozharness"


def test_clients_are_redirected_to_the_region_they_prefer(web: Client) -> None:
    web.get(WESTERN)
    web.work()
    response = web.get(WESTERN)
    assert response.headers["archiver-region"] == "us-west-2"
    assert "archiver-region-fallback" not in response.headers
    assert response.headers["location"].startswith("https://us-west-2.s3.example/")


@pytest.mark.parametrize("region", ("eu-central-1", "", "US-WEST-2"))
def test_an_unknown_preferred_region_is_ignored(web: Client, region: str) -> None:
    web.get(DEFAULT)
    web.work()
    response = web.get(f"{DEFAULT}?preferred_region={region}")
    assert (response.status, response.headers["archiver-region"]) == (302, "us-east-1")
    assert response.headers.get("archiver-region-fallback", "") == region


def test_a_preferred_region_without_a_copy_falls_back_to_one_that_has_it(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    web.get(DEFAULT)
    web.work()
    response = web.get(f"{DEFAULT}?preferred_region=us-west-2")
    assert (response.status, response.headers["archiver-region"]) == (302, "us-east-1")
    assert response.headers["archiver-region-fallback"] == "us-west-2"
    assert list(web.world.engine.repairs.values()) == [("us-west-2",)]


@pytest.mark.parametrize(
    ("peer", "query", "region", "fallback"),
    (
        ("192.0.2.1", "", "us-west-2", None),
        ("192.0.2.1", "?preferred_region=us-east-1", "us-east-1", None),
        ("192.0.2.1", "?preferred_region=mars", "us-west-2", "mars"),
        ("198.51.100.1", "", "us-east-1", None),
        ("203.0.113.1", "", "us-east-1", "asia"),
        ("203.0.113.1", "?preferred_region=us-west-2", "us-west-2", None),
        (None, "", "us-east-1", None),
    ),
)
def test_without_a_preference_clients_are_redirected_to_the_nearest_region(
    peer: str | None, query: str, region: str, fallback: str | None
) -> None:
    clients = ClientResolver(
        networks=[("192.0.2.0/24", Region("us-west-2")), ("203.0.113.0/24", Region("asia"))]
    )
    with client(World(), config=replace(CONFIG, clients=clients)) as web:
        web.get(DEFAULT)
        web.work()
        web.peer = peer
        headers = web.get(f"{DEFAULT}{query}").headers
    assert headers["archiver-region"] == region
    assert headers["location"].startswith(f"https://{region}.s3.example/")
    assert headers.get("archiver-region-fallback") == fallback


def test_a_region_without_a_copy_is_replaced_by_its_nearest_one() -> None:
    regions = tuple(map(Region, ("us-east-1", "us-west-2", "asia")))
    world = World(
        storage=MemoryStorage(regions=regions), nearest={regions[2]: (regions[1], regions[0])}
    )
    clients = ClientResolver(networks=[("192.0.2.0/24", regions[2])])
    with client(world, config=replace(CONFIG, clients=clients)) as web:
        world.storage.down.add(regions[2])
        web.get(DEFAULT)
        web.work()
        headers = web.get(DEFAULT).headers
        assert headers["archiver-region"] == "us-west-2"
        assert headers["archiver-region-fallback"] == "asia"
