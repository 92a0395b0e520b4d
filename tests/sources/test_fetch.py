"""The guarded GET: bodies, statuses, headers and malformed responses."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from archiver.errors import (
    ArchiverError,
    SourceBusy,
    SourceRefused,
    SourceUnavailable,
    TruncatedArchive,
)
from archiver.sources.response import CHUNK_BYTES, LINGER, parse_retry_after
from tests.parts.faulty_host import (
    Break,
    FaultyHost,
    Pause,
    Step,
    Until,
    chunked,
    head,
    sized,
    until_close,
)
from tests.parts.process import free_port
from tests.sources.fetching import BODY, DEADLINE, fetching, get


@pytest.mark.parametrize("framed", (sized, chunked, until_close))
def test_the_body_is_whole_in_every_framing(host: FaultyHost, framed: Any) -> None:  # noqa: ANN401
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


def test_a_body_framed_by_its_connection_hides_truncation(host: FaultyHost) -> None:
    """Only the verifier detects it."""
    assert get(host.script("/a", until_close(BODY[:100]))) == BODY[:100]


def test_every_request_names_archiver_and_carries_only_the_given_headers(
    host: FaultyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    host.script("/b", sized(BODY))
    url = host.script("/a", sized(b"", "302 Found", {"Location": "/b", "Set-Cookie": "id=1"}))

    by_name = url.replace("127.0.0.1", "localhost")  # addresses get no cookies anyway
    assert get(by_name, headers={"Connection": "keep-alive"}) == BODY

    assert [request.method for request in host.requests] == ["GET", "GET"]
    for request in host.requests:
        assert request.headers["user-agent"] == "Archiver/test"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["connection"] == "keep-alive"
        assert not {"cookie", "if-none-match", "range", "authorization"} & set(request.headers)


IS_HTML = {
    "text/html; charset=utf-8": True,
    "Application/XHTML+XML": True,
    "application/zip; name=html": False,
    "": False,
    f"text/html{'(' * 3000}": True,  # libraries recurse into the comments of RFC 5322
    f"text/html{';' * 8000}": False,  # and took 1.5 s of CPU over this
}


@pytest.mark.parametrize("content_type", IS_HTML)
def test_html_is_recognized_without_a_parser(host: FaultyHost, content_type: str) -> None:
    url = host.script("/a", sized(BODY, headers={"Content-Type": content_type}))

    async def play() -> bool:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            return answer.is_html

    assert asyncio.run(play()) is IS_HTML[content_type]


FILE_NAMES = {
    "attachment; filename=a.zip": "a.zip",
    'attachment; filename="a.zip"': "a.zip",
    "attachment": "",
    f"attachment; filename=a.zip{';' * 8000}": "",
}


@pytest.mark.parametrize("disposition", FILE_NAMES)
def test_a_file_name_is_read_from_a_header_of_limited_length(
    host: FaultyHost, disposition: str
) -> None:
    url = host.script("/a", sized(BODY, headers={"Content-Disposition": disposition}))

    async def play() -> str:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            return answer.file_name

    assert asyncio.run(play()) == FILE_NAMES[disposition]


def test_a_content_encoding_is_not_decoded(host: FaultyHost) -> None:
    assert get(host.script("/a", sized(b"\x1f\x8b not gzip", headers={"Content-Encoding": "gzip"})))


@pytest.mark.parametrize(
    ("status", "error"),
    (
        ("400 Bad Request", SourceRefused),
        ("401 Unauthorized", SourceRefused),
        ("403 Forbidden", SourceRefused),
        ("404 Not Found", SourceRefused),
        ("408 Request Timeout", SourceUnavailable),
        ("421 Misdirected Request", SourceUnavailable),
        ("425 Too Early", SourceUnavailable),
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
def test_a_busy_host_states_a_delay(host: FaultyHost, status: str) -> None:
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


def test_retry_after_may_be_a_future_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=100)

    wait = parse_retry_after(format_datetime(moment, usegmt=True))

    assert wait
    assert timedelta(seconds=95) < wait <= timedelta(seconds=100)


@pytest.mark.parametrize("text", ("", "soon", "-5", "1.5", "\N{SUPERSCRIPT TWO}", "32 Foo 2000"))
def test_retry_after_may_be_unusable(text: str) -> None:
    assert parse_retry_after(text) is None


def test_bytes_after_a_response_are_not_read_as_the_next_one(host: FaultyHost) -> None:
    url = host.script("/a", sized(b"first"), Pause(0.1), sized(b"unasked"), Pause(5))

    async def play() -> list[bytes]:
        bodies = []
        async with fetching(url) as fetch:
            for _ in range(2):
                async with fetch.get(url, deadline=DEADLINE) as answer:
                    bodies.append(await answer.read_body(100))
                await asyncio.sleep(0.3)
        return bodies

    assert asyncio.run(play()) == [b"first", b"first"]


def test_a_refused_connection_is_unavailable() -> None:
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
def test_a_malformed_response_is_unavailable(host: FaultyHost, steps: tuple[Step, ...]) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", *steps))


@pytest.mark.parametrize("steps", ((), (Break.RESET,), (b"HTTP/1.1 200",)))
def test_a_broken_connection_is_not_retried_by_aiohttp(
    host: FaultyHost, steps: tuple[Step, ...]
) -> None:
    with pytest.raises(SourceUnavailable):
        get(host.script("/a", *steps))

    assert host.targets == ["/a"]


def test_a_request_after_closing_says_that_the_process_stops(host: FaultyHost) -> None:
    """A web process that stops may have lookups that were not sent yet."""
    url = host.script("/a", sized(BODY))

    async def play() -> None:
        async with fetching(url) as fetch:
            pass
        with pytest.raises(SourceUnavailable, match="stopping"):
            async with fetch.get(url, deadline=DEADLINE):
                pass

    asyncio.run(play())
    assert not host.requests


def test_a_fast_host_yields_large_chunks_up_to_the_limit(host: FaultyHost) -> None:
    body = bytes(8 * CHUNK_BYTES)
    url = host.script("/a", chunked(body))

    async def play() -> list[int]:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            return [len(chunk) async for chunk in answer.chunks()]

    sizes = asyncio.run(play())

    assert sum(sizes) == len(body)
    assert max(sizes) <= CHUNK_BYTES
    assert len(sizes) <= 32


def test_a_slow_host_yields_small_chunks_without_delay(host: FaultyHost) -> None:
    received = threading.Event()
    body = (b"first", Until(received), b"later")
    url = host.script("/a", head({"Content-Length": "10"}), *body)

    async def play() -> list[bytes]:
        async with fetching(url) as fetch, fetch.get(url, deadline=DEADLINE) as answer:
            chunks = answer.chunks()
            first = await anext(chunks)  # although the host sends no more until then
            received.set()
            return [first, *[chunk async for chunk in chunks]]

    assert asyncio.run(play()) == [b"first", b"later"]
    assert timedelta(seconds=1) > LINGER
