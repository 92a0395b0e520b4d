"""The guarded GET and redirects, names with private addresses, and odd notations."""

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from archiver.errors import ForbiddenAddress, SourceRefused, SourceUnavailable
from tests.parts.faulty_host import FaultyHost, sized
from tests.sources.fetching import BODY, get


class Names(AbstractResolver):
    """A DNS in which every name is one IPv4 address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        answer = ResolveResult(
            hostname=host, host=self._address, port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [answer]

    async def close(self) -> None:
        """Hold nothing that needs closing."""


def test_redirects_on_the_host_are_followed_three_times(host: FaultyHost) -> None:
    statuses = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
    for step, status in enumerate(statuses):
        host.script(f"/{step}", sized(b"", status, {"Location": f"/{step + 1}"}))
    host.script("/5", sized(BODY))

    assert get(f"{host.url}/2") == BODY
    with pytest.raises(SourceRefused):
        get(f"{host.url}/1")


def test_a_redirect_to_a_configured_host_is_followed(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": there}))

    assert get(url, f"127.0.0.1:{other.port}") == BODY


def test_a_redirect_to_another_host_sends_no_request(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": there}))

    with pytest.raises(ForbiddenAddress):
        get(url)
    with pytest.raises(ForbiddenAddress):
        get(url, allow_private_addresses=True)

    assert other.requests == []


@pytest.mark.parametrize("location", ("http://[", "http://127.0.0.1:99999/", f"/{'a' * 5000}"))
def test_a_redirect_without_address_is_an_error(host: FaultyHost, location: str) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", sized(b"", "302 Found", {"Location": location})))
    with pytest.raises(SourceUnavailable):
        get(host.script("/b", sized(b"", "302 Found")))


def test_a_name_with_a_private_address_is_refused(host: FaultyHost) -> None:
    host.script("/a", sized(BODY))
    url = f"http://hg.example.org:{host.port}/a"
    inside = Names("127.0.0.1")

    with pytest.raises(ForbiddenAddress):
        get(url, resolver=inside)
    assert host.requests == []

    assert get(url, resolver=inside, allow_private_addresses=True) == BODY


def test_a_redirect_to_a_name_with_a_private_address_is_refused(
    host: FaultyHost, other: FaultyHost
) -> None:
    there = f"cdn.example.org:{other.port}"
    other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": f"http://{there}/there"}))

    with pytest.raises(ForbiddenAddress):
        get(url, there, resolver=Names("127.0.0.1"))

    assert other.requests == []


@pytest.mark.parametrize("number", ("2130706433", "0x7f000001", "127.1", "0177.0.0.1"))
def test_a_private_address_in_an_odd_spelling_is_refused(host: FaultyHost, number: str) -> None:
    with pytest.raises((ForbiddenAddress, SourceUnavailable)):
        get(f"http://{number}:{host.port}/a")

    assert host.requests == []


def test_localhost_is_loopback_if_the_settings_say_localhost(host: FaultyHost) -> None:
    host.script("/a", sized(BODY))

    assert get(f"http://localhost:{host.port}/a") == BODY
