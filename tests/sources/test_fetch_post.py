"""The guarded POST, and the credentials that a request carries."""

import asyncio
from typing import Any

import pytest

from archiver.errors import ForbiddenAddress, SourceRefused
from tests.parts.faulty_host import FaultyHost, sized
from tests.sources.fetching import BODY, DEADLINE, fetching, get

CREDENTIALS = "Basic eDpzM2NyM3Q="
HEADERS = {"Content-Type": "application/x-question"}


def post(url: str, body: bytes, *redirect_hosts: str, **how: Any) -> bytes:  # noqa: ANN401 - see fetching
    async def play() -> bytes:
        async with (
            fetching(url, *redirect_hosts, **how) as fetch,
            fetch.post(url, body, deadline=DEADLINE, headers=HEADERS) as response,
        ):
            return await response.read_body(len(BODY))

    return asyncio.run(play())


@pytest.mark.parametrize("status", (301, 302, 303, 307, 308))
def test_a_redirect_repeats_the_method_the_body_and_the_headers(
    host: FaultyHost, status: int
) -> None:
    host.script("/b", sized(BODY))
    url = host.script("/a", sized(b"", f"{status} Moved", {"Location": "/b"}))

    assert post(url, b"question" * 1000) == BODY

    for request in host.requests:
        assert request.method == "POST"
        assert request.body == b"question" * 1000
        assert request.headers["content-type"] == "application/x-question"
        assert "authorization" not in request.headers


def test_a_post_is_redirected_three_times(host: FaultyHost) -> None:
    for step in range(5):
        host.script(f"/{step}", sized(b"", "301 Moved", {"Location": f"/{step + 1}"}))
    host.script("/5", sized(BODY))

    assert post(f"{host.url}/2", b"") == BODY
    with pytest.raises(SourceRefused):
        post(f"{host.url}/1", b"")


def test_a_post_does_not_leave_the_perimeter(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "301 Moved", {"Location": there}))

    with pytest.raises(ForbiddenAddress):
        post(url, b"question")

    assert other.requests == []


def test_requests_to_the_host_itself_carry_its_authorization(host: FaultyHost) -> None:
    host.script("/b", sized(BODY))
    url = host.script("/a", sized(b"", "301 Moved", {"Location": "/b"}))

    assert post(url, b"", authorization=CREDENTIALS) == BODY
    assert get(url, authorization=CREDENTIALS) == BODY

    assert [request.headers["authorization"] for request in host.requests] == [CREDENTIALS] * 4


def test_another_port_or_name_gets_no_authorization(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(b"", "302 Found", {"Location": f"{host.url}/back"}))
    url = host.script("/a", sized(b"", "307 Temporary", {"Location": there}))
    host.script("/back", sized(BODY))
    by_name = there.replace("127.0.0.1", "localhost")
    aside = host.script("/b", sized(b"", "301 Moved", {"Location": by_name}))

    others = (f"127.0.0.1:{other.port}", f"localhost:{other.port}")
    assert post(url, b"", *others, authorization=CREDENTIALS) == BODY
    assert post(aside, b"", *others, authorization=CREDENTIALS) == BODY

    assert len(other.requests) == 2
    for request in other.requests:
        assert "authorization" not in request.headers


def test_the_spelling_of_the_host_does_not_matter(host: FaultyHost) -> None:
    url = host.script("/a", sized(BODY)).replace("http://127.0.0.1", "HTTP://LocalHost")

    assert post(url, b"", authorization=CREDENTIALS) == BODY

    assert host.requests[0].headers["authorization"] == CREDENTIALS


def test_the_same_host_by_another_name_gets_no_authorization(host: FaultyHost) -> None:
    by_name = f"http://localhost:{host.port}/b"
    url = host.script("/a", sized(b"", "301 Moved", {"Location": by_name}))
    host.script("/b", sized(BODY))

    assert post(url, b"", f"localhost:{host.port}", authorization=CREDENTIALS) == BODY

    first, second = host.requests
    assert first.headers["authorization"] == CREDENTIALS
    assert "authorization" not in second.headers
