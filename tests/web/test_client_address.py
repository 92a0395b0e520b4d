"""The address and region of a client, which it cannot forge."""

import ipaddress
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.locality.networks import Networks
from archiver.model import Region
from archiver.web.client_address import FORWARDED_MAX_BYTES, ClientResolver

EAST, WEST, ASIA = Region("us-east-1"), Region("us-west-2"), Region("asia")
PROXY, OTHER_PROXY = "10.0.0.1", "2001:db8:ffff::1"

CLIENTS = ClientResolver(
    networks=[("192.0.2.0/24", WEST), ("2001:db8::/32", EAST)],
    published=Networks(
        [("192.0.2.128/25", ASIA), ("198.51.100.0/24", ASIA), ("203.0.113.0/24", None)]
    ),
    trusted_proxies=["10.0.0.0/8", "2001:db8:ffff::/48"],
)


def scope(peer: str | None, *forwarded: str, **headers: str) -> dict[str, object]:
    lines = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    lines += [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"client": (peer, 1234) if peer is not None else None, "headers": lines}


@pytest.mark.parametrize(
    ("peer", "region"),
    (
        ("192.0.2.1", WEST),
        ("192.0.2.200", WEST),
        ("::ffff:192.0.2.1", WEST),
        ("198.51.100.7", ASIA),
        ("203.0.113.1", None),
        ("2001:db8::1", EAST),
        ("2001:db8::1%eth0", EAST),
        ("2001:db9::1", None),
        ("unix:/run/a.sock", None),
        ("", None),
        (None, None),
    ),
)
def test_the_region_is_that_of_the_address(peer: str | None, region: Region | None) -> None:
    for _ in range(2):
        assert CLIENTS.resolve(scope(peer)).region == region


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    (
        (PROXY, (), PROXY),
        (PROXY, ("192.0.2.1",), "192.0.2.1"),
        (PROXY, ("198.51.100.7, 192.0.2.1",), "192.0.2.1"),
        (PROXY, ("198.51.100.7", "192.0.2.1"), "192.0.2.1"),
        (PROXY, ("198.51.100.7, 192.0.2.1, 10.1.1.1",), "192.0.2.1"),
        (PROXY, ("192.0.2.1,10.1.1.1", f" {OTHER_PROXY} "), "192.0.2.1"),
        (f"::ffff:{PROXY}", ("192.0.2.1",), "192.0.2.1"),
        (OTHER_PROXY, ("2001:db8::7",), "2001:db8::7"),
        (PROXY, ("10.2.2.2, 10.1.1.1",), "10.2.2.2"),
        (PROXY, ("192.0.2.1:4711",), "192.0.2.1"),
        (PROXY, ("[2001:db8::7]:4711",), "2001:db8::7"),
        (PROXY, ("[2001:db8::7]",), "2001:db8::7"),
        (PROXY, ("::ffff:192.0.2.1",), "192.0.2.1"),
        (PROXY, ("192.0.2.1, unknown",), PROXY),
        (PROXY, ("192.0.2.1, unknown, 10.1.1.1",), "10.1.1.1"),
        (PROXY, ("192.0.2.1,",), PROXY),
        (PROXY, ("\xff",), PROXY),
        ("192.0.2.9", ("192.0.2.1",), "192.0.2.9"),
        ("192.0.2.9", (f"192.0.2.1, {PROXY}",), "192.0.2.9"),
    ),
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    peer: str, forwarded: tuple[str, ...], address: str
) -> None:
    for _ in range(2):
        assert CLIENTS.resolve(scope(peer, *forwarded)).address == address


def test_the_region_is_that_of_the_client_and_not_of_the_proxy() -> None:
    clients = ClientResolver(
        networks=[("10.0.0.0/8", EAST), ("192.0.2.0/24", WEST)], trusted_proxies=["10.0.0.0/8"]
    )
    assert clients.resolve(scope(PROXY)).region == EAST
    assert clients.resolve(scope(PROXY, "192.0.2.1")).region == WEST
    assert clients.resolve(scope(PROXY, "198.51.100.1")).region is None


def test_no_other_header_is_believed() -> None:
    request = scope(PROXY, forwarded="for=192.0.2.1", **{"x-real-ip": "192.0.2.1"})
    assert CLIENTS.resolve(request).address == PROXY


def test_an_endless_chain_of_proxies_is_cut() -> None:
    assert CLIENTS.resolve(scope(PROXY, "192.0.2.1" + ", 10.9.9.9" * 1000)).address == "10.9.9.9"


@pytest.mark.parametrize("client", ("192.0.2.1", "2001:db8::7"))
def test_only_the_end_of_a_long_header_is_read(client: str) -> None:
    """The client writes its beginning, and could make parsing slow."""
    assert CLIENTS.resolve(scope(PROXY, f"{'1' * 60_000}, {client}")).address == client
    assert (
        CLIENTS.resolve(scope(PROXY, f"{'1,' * 30_000}{client}, {OTHER_PROXY}")).address == client
    )
    assert CLIENTS.resolve(scope(PROXY, f"{'1' * 60_000}{client}")).address == PROXY


@given(
    left=st.text(st.characters(max_codepoint=255)),
    client=st.ip_addresses(network="192.0.2.0/24") | st.ip_addresses(network="2001:db8:1::/48"),
    proxies=st.lists(st.ip_addresses(network="10.0.0.0/8"), max_size=5),
)
def test_a_forged_header_does_not_change_the_address(
    left: str,
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    proxies: list[ipaddress.IPv4Address],
) -> None:
    forwarded = ", ".join((left, str(client), *map(str, proxies)))
    assert CLIENTS.resolve(scope(PROXY, forwarded)).address == str(client)


def test_without_configuration_no_client_has_a_region() -> None:
    assert ClientResolver().resolve(scope("192.0.2.1", "192.0.2.2")).region is None
    assert ClientResolver().resolve(scope("192.0.2.1", "192.0.2.2")).address == "192.0.2.1"


def test_newly_published_networks_apply_to_remembered_clients() -> None:
    clients = ClientResolver(trusted_proxies=[PROXY])
    behind, direct = scope(PROXY, "198.51.100.7"), scope("198.51.100.7")
    assert clients.resolve(behind).region is clients.resolve(direct).region is None
    clients.replace_published(Networks([("198.51.100.0/24", ASIA)]))
    assert clients.resolve(behind).region == clients.resolve(direct).region == ASIA


def test_the_memory_of_clients_is_bounded() -> None:
    clients = ClientResolver(trusted_proxies=[PROXY], remembered_max=100)
    tracemalloc.start()
    try:
        for number in range(2000):
            clients.resolve(scope(str(ipaddress.IPv6Address(number << 64))))
            clients.resolve(scope(PROXY, f"{number}{'x' * FORWARDED_MAX_BYTES},192.0.2.1"))
            clients.resolve(scope(PROXY, f"{number:0200},192.0.2.1"))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300_000
