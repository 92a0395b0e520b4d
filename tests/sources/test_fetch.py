"""The guarded GET, against hosts that do wrong."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from archiver.errors import (
    ArchiverError,
    ForbiddenAddress,
    SourceBusy,
    SourceRefused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
    TruncatedArchive,
)
from archiver.sources.fetch import CHUNK_BYTES, Fetch, open_fetch, parse_retry_after
from archiver.sources.perimeter import Perimeter
from tests.parts.faulty import (
    Break,
    FaultyHost,
    Forever,
    Pause,
    Step,
    chunked,
    faulty_host,
    head,
    sized,
    until_close,
)
from tests.parts.process import free_port

DEADLINE = timedelta(seconds=10)
BODY = bytes(range(256)) * 200


@pytest.fixture
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture
def other() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


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
        """Hold nothing that would have to be closed."""


@asynccontextmanager
async def fetching(
    home: str,
    *redirect_hosts: str,
    read_timeout_s: float = 5,
    min_rate_bytes_s: int = 0,
    allow_private_addresses: bool = False,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[Fetch]:
    perimeter = Perimeter(
        home=URL(home),
        redirect_hosts=redirect_hosts,
        allow_private_addresses=allow_private_addresses,
    )
    async with open_fetch(
        perimeter=perimeter,
        read_timeout=timedelta(seconds=read_timeout_s),
        min_rate_bytes_s=min_rate_bytes_s,
        min_rate_window=timedelta(seconds=0.5),
        user_agent="Archiver/test",
        resolver=resolver,
    ) as fetch:
        yield fetch


def get(url: str, *redirect_hosts: str, deadline: timedelta = DEADLINE, **how: Any) -> bytes:  # noqa: ANN401 - see fetching
    """Return the body at *url*, whose host is the configured one."""

    async def play() -> bytes:
        async with (
            fetching(url, *redirect_hosts, **how) as fetch,
            fetch.get(url, deadline=deadline) as answer,
        ):
            if answer.status != 200:
                raise answer.failure
            return b"".join([chunk async for chunk in answer.chunks()])

    return asyncio.run(play())


@pytest.mark.parametrize("framed", (sized, chunked, until_close))
def test_the_body_comes_whole_in_every_framing(host: FaultyHost, framed: Any) -> None:  # noqa: ANN401
    assert get(host.script("/a", framed(BODY))) == BODY


@pytest.mark.parametrize(
    "steps",
    (
        (sized(BODY, missing=1),),
        (chunked(BODY, ended=False),),
        (chunked(BODY)[:-1],),
        (sized(BODY, missing=9), Pause(0.1), Break.RESET),
        (head({"Transfer-Encoding": "chunked"}), Pause(0.1), b"many\r\n", Pause(9)),
        (head({"Transfer-Encoding": "chunked"}), Pause(0.1), b"1\r\nabc\r\n", Pause(9)),
        (chunked(BODY, ended=False), Pause(0.1), b"-1\r\n", Pause(9)),
    ),
)
def test_a_body_that_breaks_off_is_truncated(host: FaultyHost, steps: tuple[Step, ...]) -> None:
    with pytest.raises(TruncatedArchive):
        get(host.script("/a", *steps))


def test_a_connection_that_is_the_frame_hides_what_is_missing(host: FaultyHost) -> None:
    """Only the verifier can tell."""
    assert get(host.script("/a", until_close(BODY[:100]))) == BODY[:100]


def test_what_is_asked_names_us_and_carries_nothing_else(
    host: FaultyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    host.script("/b", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": "/b", "Set-Cookie": "id=1"}))

    assert get(url.replace("127.0.0.1", "localhost")) == BODY  # addresses get no cookies anyway

    assert [request.method for request in host.requests] == ["GET", "GET"]
    for request in host.requests:
        assert request.headers["user-agent"] == "Archiver/test"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["connection"] == "keep-alive"
        assert not {"cookie", "if-none-match", "range", "authorization"} & set(request.headers)


def test_a_content_encoding_is_left_as_it_is(host: FaultyHost) -> None:
    assert get(host.script("/a", sized(b"\x1f\x8b not gzip", headers={"Content-Encoding": "gzip"})))


@pytest.mark.parametrize(
    ("status", "error"),
    (
        ("400 Bad Request", SourceRefused),
        ("401 Unauthorized", SourceRefused),
        ("403 Forbidden", SourceRefused),
        ("404 Not Found", SourceRefused),
        ("429 Too Many Requests", SourceBusy),
        ("500 Internal Server Error", SourceUnavailable),
        ("502 Bad Gateway", SourceUnavailable),
        ("503 Service Unavailable", SourceBusy),
        ("206 Partial Content", SourceUnavailable),
        ("304 Not Modified", SourceUnavailable),
    ),
)
def test_each_status_has_its_error(
    host: FaultyHost, status: str, error: type[ArchiverError]
) -> None:
    with pytest.raises(error) as raised:
        get(host.script("/a", sized(b"secret words of the host", status)))

    assert type(raised.value) is error
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("status", ("429 Too Many Requests", "503 Service Unavailable"))
def test_a_busy_host_says_for_how_long(host: FaultyHost, status: str) -> None:
    with pytest.raises(SourceBusy) as raised:
        get(host.script("/a", sized(b"", status, {"Retry-After": "17"})))

    assert raised.value.retry_after == timedelta(seconds=17)


@pytest.mark.parametrize(
    ("text", "seconds"),
    (
        ("0", 0),
        ("120", 120),
        ("999999999999999999999999", 3600),
        ("86400", 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2115 07:28:00 GMT", 3600),
    ),
)
def test_retry_after_is_seconds_or_a_date_and_at_most_an_hour(text: str, seconds: int) -> None:
    assert parse_retry_after(text) == timedelta(seconds=seconds)


def test_retry_after_may_be_a_moment_to_come() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=100)

    wait = parse_retry_after(format_datetime(moment, usegmt=True))

    assert wait
    assert timedelta(seconds=95) < wait <= timedelta(seconds=100)


@pytest.mark.parametrize("text", ("", "soon", "-5", "1.5", "\N{SUPERSCRIPT TWO}", "32 Foo 2000"))
def test_retry_after_may_say_nothing(text: str) -> None:
    assert parse_retry_after(text) is None


def test_a_silent_host_times_out(host: FaultyHost) -> None:
    with pytest.raises(SourceTimeout):
        get(host.script("/a", Pause(5)), read_timeout_s=0.2)
    with pytest.raises(SourceTimeout):
        get(host.script("/b", sized(BODY, missing=1), Pause(5)), read_timeout_s=0.2)


@pytest.mark.parametrize(
    ("start", "drop"),
    (
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (head({"Transfer-Encoding": "chunked"}) + b"1;", b"x"),
        (head({"Transfer-Encoding": "chunked"}) + b"0\r\nX: ", b"x"),
    ),
)
def test_what_is_neither_a_whole_head_nor_body_is_silence(
    host: FaultyHost, start: bytes, drop: bytes
) -> None:
    started = time.monotonic()
    with pytest.raises(SourceTimeout):
        get(host.script("/a", start, Forever(drop, every_s=0.05)), read_timeout_s=0.3)

    assert time.monotonic() - started < DEADLINE.total_seconds() / 2


def test_a_host_that_drips_is_too_slow(host: FaultyHost) -> None:
    url = host.script("/a", head({"Content-Length": "999"}), Forever(b".", every_s=0.05))

    with pytest.raises(SourceTooSlow):
        get(url, min_rate_bytes_s=100)


def test_what_follows_an_answer_is_not_taken_for_the_next_one(host: FaultyHost) -> None:
    url = host.script("/a", sized(b"first"), Pause(0.1), sized(b"unasked"), Pause(5))

    async def play() -> list[bytes]:
        bodies = []
        async with fetching(url) as fetch:
            for _ in range(2):
                async with fetch.get(url, deadline=DEADLINE) as answer:
                    bodies.append(await answer.text(100))
                await asyncio.sleep(0.3)
        return bodies

    assert asyncio.run(play()) == [b"first", b"first"]


def test_a_host_that_is_never_done_runs_into_the_deadline(host: FaultyHost) -> None:
    drop: tuple[Step, ...] = (b".", Pause(0.05))
    url = host.script("/a", head({"Content-Length": "1000"}), *drop * 100)

    with pytest.raises(SourceTimeout):
        get(url, deadline=timedelta(seconds=0.5))


def test_redirects_do_not_extend_the_deadline(host: FaultyHost) -> None:
    for step in range(3):
        location = f"/{step + 1}"
        host.script(f"/{step}", Pause(0.3), sized(b"", "302 Found", {"Location": location}))
    host.script("/3", sized(BODY))

    with pytest.raises(SourceTimeout):
        get(f"{host.url}/0", deadline=timedelta(seconds=0.6))


def test_nobody_at_home_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable):
        get(f"http://127.0.0.1:{free_port()}/a")


@pytest.mark.parametrize(
    "steps",
    (
        (),
        (Break.RESET,),
        (b"220 mail.example.org ESMTP\r\n",),
        (b"HTTP/1.1 two hundred\r\n\r\n",),
        (head({"Content-Length": "-1"}),),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",),
    ),
)
def test_a_host_that_does_not_speak_http_is_unavailable(
    host: FaultyHost, steps: tuple[Step, ...]
) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", *steps))


@pytest.mark.parametrize("steps", ((), (Break.RESET,), (b"HTTP/1.1 200",)))
def test_a_host_that_breaks_off_is_not_asked_again_behind_our_back(
    host: FaultyHost, steps: tuple[Step, ...]
) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", *steps))

    assert host.targets == ["/a"]


def test_redirects_on_the_host_are_followed_three_times(host: FaultyHost) -> None:
    statuses = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
    for step, status in enumerate(statuses):
        host.script(f"/{step}", sized(b"", status, {"Location": f"/{step + 1}"}))
    host.script("/5", sized(BODY))

    assert get(f"{host.url}/2") == BODY
    with pytest.raises(SourceRefused):
        get(f"{host.url}/1")


def test_a_redirect_to_a_named_host_is_followed(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": there}))

    assert get(url, f"127.0.0.1:{other.port}") == BODY


def test_a_redirect_to_another_host_contacts_nobody(host: FaultyHost, other: FaultyHost) -> None:
    there = other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": there}))

    with pytest.raises(ForbiddenAddress):
        get(url)
    with pytest.raises(ForbiddenAddress):
        get(url, allow_private_addresses=True)

    assert other.requests == []


@pytest.mark.parametrize("location", ("http://[", "http://127.0.0.1:99999/"))
def test_a_redirect_to_nowhere_is_no_answer(host: FaultyHost, location: str) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", sized(b"", "302 Found", {"Location": location})))
    with pytest.raises(SourceUnavailable):
        get(host.script("/b", sized(b"", "302 Found")))


def test_a_name_that_leads_inside_is_not_followed(host: FaultyHost) -> None:
    host.script("/a", sized(BODY))
    url = f"http://hg.example.org:{host.port}/a"
    inside = Names("127.0.0.1")

    with pytest.raises(ForbiddenAddress):
        get(url, resolver=inside)
    assert host.requests == []

    assert get(url, resolver=inside, allow_private_addresses=True) == BODY


def test_a_redirect_to_a_name_that_leads_inside_is_not_followed(
    host: FaultyHost, other: FaultyHost
) -> None:
    there = f"cdn.example.org:{other.port}"
    other.script("/there", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": f"http://{there}/there"}))

    with pytest.raises(ForbiddenAddress):
        get(url, there, resolver=Names("127.0.0.1"))

    assert other.requests == []


@pytest.mark.parametrize("number", ("2130706433", "0x7f000001", "127.1", "0177.0.0.1"))
def test_an_address_in_an_odd_spelling_is_not_contacted(host: FaultyHost, number: str) -> None:
    with pytest.raises((ForbiddenAddress, SourceUnavailable)):
        get(f"http://{number}:{host.port}/a")

    assert host.requests == []


def test_localhost_is_loopback_if_the_settings_say_localhost(host: FaultyHost) -> None:
    host.script("/a", sized(BODY))

    assert get(f"http://localhost:{host.port}/a") == BODY


def test_much_comes_in_large_chunks_but_none_too_large(host: FaultyHost) -> None:
    body = bytes(8 * CHUNK_BYTES)
    url = host.script("/a", chunked(body))

    async def play() -> list[int]:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            return [len(chunk) async for chunk in answer.chunks()]

    sizes = asyncio.run(play())

    assert sum(sizes) == len(body)
    assert max(sizes) <= CHUNK_BYTES
    assert len(sizes) <= 32


def test_little_is_not_held_back(host: FaultyHost) -> None:
    url = host.script("/a", head({"Content-Length": "10"}), b"first", Pause(2), b"later")

    async def play() -> tuple[bytes, float]:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            started = time.monotonic()
            return await anext(answer.chunks()), time.monotonic() - started

    chunk, waited_s = asyncio.run(play())

    assert chunk == b"first"
    assert waited_s < 1
