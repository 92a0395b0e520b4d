"""Addresses and networks, compared with Python's own implementation."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.locality.networks import (
    Address,
    Networks,
    format_address,
    format_allotment,
    parse_address,
    parse_network,
)

v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address)
mapped = v4.map(lambda address: IPv6Address(f"::ffff:{address}"))
addresses = st.one_of(v4, v6, mapped)

# Few bits, so that networks lie in one another and addresses in networks.
narrow_v4 = st.integers(0, 255).map(lambda n: IPv4Address(n << 24 | n))
narrow_v6 = st.integers(0, 255).map(lambda n: IPv6Address(n << 120 | n))
narrow = st.one_of(narrow_v4, narrow_v6)


@st.composite
def some_network(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(narrow)
    bits = draw(st.integers(0, 8) | st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network((address, bits), strict=False)


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def parsed(text: str) -> Address:
    address = parse_address(text)
    assert address is not None
    return address


@given(addresses)
def test_addresses_are_parsed_like_in_python(address: IPv4Address | IPv6Address) -> None:
    expected = unmapped(address)
    for text in (str(address), address.exploded, str(address).upper()):
        assert parsed(text) == expected.packed
    assert ipaddress.ip_address(format_address(parsed(str(address)))) == expected


@given(st.text(max_size=40) | st.text("0123456789abcdef:.%/ \0x", max_size=20))
def test_texts_that_python_refuses_are_not_addresses(text: str) -> None:
    try:
        expected = unmapped(ipaddress.ip_address(text.partition("%")[0] if ":" in text else text))
    except ValueError:
        assert parse_address(text) is None
    else:
        assert parsed(text) == expected.packed


@pytest.mark.parametrize(
    "text",
    ("", "unix:", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4/32", "1.2.3.4%eth0", "::1/128",
     "0x7f.1", "2130706433", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\0",
     "[::1]", "localhost", "\u0661.2.3.4"),
)  # fmt: skip
def test_lookalikes_are_not_addresses(text: str) -> None:
    assert parse_address(text) is None


def test_a_zone_is_not_part_of_an_address() -> None:
    assert parsed("fe80::1%eth0") == parsed("fe80::1%2") == parsed("fe80::1")


@given(st.lists(some_network()), narrow)
def test_an_address_has_the_value_of_its_smallest_network(
    networks: list[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
) -> None:
    table = Networks((str(network), str(network)) for network in networks)
    holding = [n for n in networks if n.version == address.version and address in n]
    expected = max(holding, key=lambda network: network.prefixlen, default=None)
    assert table.get(parsed(str(address))) == (str(expected) if expected else None)


def test_the_first_of_several_values_of_a_network_is_used() -> None:
    table = Networks([("10.0.0.0/8", "a"), ("10.0.0.0/8", "b"), ("10.0.0.0/16", "c")])
    assert table.get(parsed("10.1.0.1")) == "a"
    assert table.get(parsed("10.0.0.1")) == "c"


def test_a_value_of_none_hides_the_enclosing_network() -> None:
    table = Networks([("10.0.0.0/8", "a"), ("10.1.0.0/16", None)])
    assert table.get(parsed("10.1.2.3")) is None


def test_ipv4_networks_may_have_ipv6_notation() -> None:
    table = Networks([("::ffff:10.0.0.0/104", "ten")])
    assert table.get(parsed("10.1.2.3")) == table.get(parsed("::ffff:10.1.2.3")) == "ten"
    assert table.get(parsed("11.1.2.3")) is None
    assert Networks([("::/0", "six")]).get(parsed("::ffff:10.1.2.3")) is None


@pytest.mark.parametrize(
    "text", ("", "10.0.0.1/8", "10.0.0.0/33", "::1/64", "nonsense", "1.2.3.4/")
)
def test_an_invalid_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_network(text)


def test_one_address_is_a_network() -> None:
    assert Networks([("192.0.2.1", "one")]).get(parsed("192.0.2.1")) == "one"


@given(addresses)
def test_an_allotment_is_an_ipv4_address_or_an_ipv6_network(
    address: IPv4Address | IPv6Address,
) -> None:
    alone = unmapped(address)
    expected = ipaddress.ip_network((alone, 32 if alone.version == 4 else 64), strict=False)
    assert ipaddress.ip_network(format_allotment(parsed(str(address)))) == expected
