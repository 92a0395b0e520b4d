"""Law 7: only configured hosts are contacted."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from archiver.errors import ForbiddenAddress
from archiver.sources.perimeter import Perimeter

HOME = URL("https://hg.example.org/")
perimeter = Perimeter(home=HOME, redirect_hosts=("cdn.example.org", "mirror.example.org:8443"))

PUBLIC = ("93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
NOT_PUBLIC = (
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # an IPv4-compatible address
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo; its client is 127.0.0.1
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%2",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_admitted(address: str) -> None:
    assert perimeter.admits(address, 443)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_private_addresses_are_refused_in_every_notation(address: str) -> None:
    assert not perimeter.admits(address, 443)


@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="127.0.0.0/8"))
def test_embedded_private_addresses_are_refused(address: ipaddress.IPv4Address) -> None:
    value = int(address)
    for disguise in (
        ipaddress.IPv6Address(value),
        ipaddress.IPv6Address(0xFFFF << 32 | value),
        ipaddress.IPv6Address((0x64FF9B << 96) | value),
        ipaddress.IPv6Address(0x2002 << 112 | value << 80),
        ipaddress.IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (value ^ 0xFFFFFFFF)),
    ):
        assert not perimeter.admits(str(disguise), 443)


@pytest.mark.parametrize(
    ("home", "address"),
    (
        ("http://127.0.0.1:8000/", "127.0.0.1"),
        ("http://10.1.2.3:8000/", "10.1.2.3"),
        ("http://[::1]:8000/", "::1"),
        ("http://[0:0:0:0:0:0:0:1]:8000/", "::1"),
        ("http://localhost:8000/", "127.0.0.1"),
        ("http://LocalHost:8000/", "::1"),
    ),
)
def test_a_configured_address_is_admitted_at_its_port(home: str, address: str) -> None:
    named = Perimeter(home=URL(home))

    assert named.admits(address, 8000)
    assert not named.admits(address, 8001)
    assert not named.admits("10.9.9.9", 8000)


def test_localhost_is_only_loopback() -> None:
    assert not Perimeter(home=URL("http://localhost/")).admits("192.168.0.1", 80)


def test_settings_may_allow_private_addresses() -> None:
    trusting = Perimeter(home=HOME, allow_private_addresses=True)

    assert all(trusting.admits(address, 443) for address in (*PUBLIC, *NOT_PUBLIC))


@pytest.mark.parametrize(
    "target",
    (
        "https://hg.example.org/elsewhere",
        "https://hg.example.org:443/",
        "https://HG.example.org/",
        "https://cdn.example.org/x",
        "https://mirror.example.org:8443/x",
    ),
)
def test_redirects_to_configured_hosts_are_followed(target: str) -> None:
    perimeter.check_redirect(HOME, URL(target))


@pytest.mark.parametrize(
    "target",
    (
        "http://hg.example.org/",
        "https://hg.example.org:8443/",
        "https://hg.example.org.evil.example/",
        "https://evil.example/hg.example.org",
        "https://evil.example#hg.example.org",
        "https://hg.example.org@evil.example/",
        "https://user:secret@hg.example.org/",
        "https://sub.hg.example.org/",
        "https://cdn.example.org:444/",
        "https://mirror.example.org/",
        "http://mirror.example.org:8443/",
        "https://127.0.0.1/",
        "ftp://hg.example.org/",
        "file:///etc/passwd",
        "gopher://hg.example.org:443/",
        "https://xn--/",  # which no name becomes
    ),
)
def test_redirects_elsewhere_are_refused(target: str) -> None:
    with pytest.raises(ForbiddenAddress) as refused:
        perimeter.check_redirect(HOME, URL(target))

    assert "evil" not in refused.value.message


def test_a_redirect_may_lead_from_http_to_https_but_not_back() -> None:
    plain = Perimeter(home=URL("http://hg.example.org/"))

    plain.check_redirect(plain.home, HOME)
    with pytest.raises(ForbiddenAddress):
        plain.check_redirect(HOME, plain.home)
